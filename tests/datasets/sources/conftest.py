"""What tests of sources share."""

import io
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.makers.plant import Plant, make_collection


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """A function that makes empty files below a new root, with given texts beside them."""
    return partial(make_collection, tmp_path / "collection")


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., Path]:
    """Write tar files below a folder, by their paths: members in order, bytes or text by name."""

    def write(shards: dict[str, dict[str, str | bytes]]) -> Path:
        for shard, members in shards.items():
            path = tmp_path / "set" / shard
            path.parent.mkdir(parents=True, exist_ok=True)
            with tarfile.open(path, "w") as tar:
                for name, content in members.items():
                    data = content if isinstance(content, bytes) else content.encode()
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        return tmp_path / "set"

    return write
