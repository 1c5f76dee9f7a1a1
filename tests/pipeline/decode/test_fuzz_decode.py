"""Whatever the bytes of a store are, it is decoded or the error says what is wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest

from latentset.datasets.sources import Source
from latentset.datasets.store.formats import Format
from latentset.pipeline.jobs.tasks import JobResult
from tests.makers.decoding import decode_whole
from tests.makers.fuzzing import fuzz


@pytest.fixture
def sound(run: Callable[..., JobResult], uniform: Source, tmp_path: Path) -> Path:
    return Path(str(run(uniform, tmp_path / "latents", shard_bytes=1 << 12).store.location))


def test_a_sound_store_is_decoded(sound: Path, tmp_path: Path) -> None:
    assert decode_whole(sound, tmp_path) == "decoded"


@pytest.mark.parametrize("container", ["zarr", "hdf5"])
def test_a_forged_store(container: Format, sound: Path, tmp_path: Path) -> None:
    fuzz(decode_whole, sound, container, tmp_path, f"decode {container}")
