"""Which codecs have names, and where their files are."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from latentset.datasets.errors import CodecGraphError, CodecNotFoundError, StoreError
from latentset.datasets.store.mirror import default_cache
from latentset.pipeline.codec.catalogue import (
    PUBLISHED,
    cache_folder,
    check_facts,
    list_codecs,
    locate_codec,
    shipped_codecs,
)

NAME = "bmshj2018-hyperprior-mse-3"


def test_the_published_names() -> None:
    names = list(PUBLISHED)
    assert len(names) == 16
    assert names[0] == "bmshj2018-hyperprior-msssim-1"
    assert names[-1] == "bmshj2018-hyperprior-mse-8"


@pytest.mark.parametrize("name", PUBLISHED)
def test_their_facts_are_those_of_the_listings(name: str, real_images: Path) -> None:
    file = name.removeprefix("bmshj2018-hyperprior-") + ".txt"
    listing = (real_images / "published-graphs" / file).read_text()

    def shape(tensor: str, dtype: str) -> tuple[int, ...]:
        (found,) = set(re.findall(rf"\n{tensor}(?:/_\S+)?:0 \(dtype={dtype}, (.*)\)\n", listing))
        return tuple(int(side) for side in re.findall(r"\d+", found))

    facts = PUBLISHED[name]
    assert shape("entropy_model/entropy_model_2/Cast", "int32") == (facts.y_channels,)
    assert shape("entropy_model/entropy_model/pmf_to_cdf/stack", "int32") == facts.y_table
    assert shape("side_entropy_model/side_entropy_model/pmf_to_cdf/stack", "int32") == facts.z_table
    last = "hyper_synthesis/layer_2/q_re_lu_2/TruncateDiv"
    assert facts.integer_h_s
    assert shape(last, "int32") == (facts.y_channels,)


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"y_channels": 8}, "channels of y: expected 192, got 8"),
        ({"y_table": (64, 99)}, "table of y: expected 64x1481, got 64x99"),
        ({"z_table": (128, 7)}, "table of z: expected 128x41, got 128x7"),
        (
            {"integer_h_s": False},
            "h_s: expected a network of integers, got a network with fractions",
        ),
    ],
)
def test_another_codec_of_a_published_name(changed: dict[str, Any], difference: str) -> None:
    found = replace(PUBLISHED[NAME], **changed)
    with pytest.raises(
        CodecGraphError, match=rf"the published codec .* \({difference}\)\. Put your"
    ):
        check_facts(NAME, found)
    check_facts("mine", found)
    check_facts(NAME, PUBLISHED[NAME])


def test_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTSET_CACHE", str(tmp_path / "named"))
    assert cache_folder() == tmp_path / "named"
    assert cache_folder(tmp_path / "asked") == tmp_path / "asked"
    monkeypatch.delenv("LATENTSET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "latentset" / "codecs"


def test_the_list(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.metagraph").write_bytes(b"1")
    (tmp_path / "mine.metagraph").write_bytes(b"2")
    (tmp_path / ".mine.metagraph.12.part").write_bytes(b"3")
    entries = {entry.name: entry for entry in list_codecs(tmp_path)}
    assert set(entries) == {*shipped_codecs(), *PUBLISHED, "mine"}
    assert entries[NAME].path == tmp_path / f"{NAME}.metagraph"
    assert entries[NAME].origin == "published"
    assert entries["bmshj2018-hyperprior-msssim-1"].path is None
    assert entries["mine"].origin == "own"


def test_three_codecs_are_shipped() -> None:
    names = [f"demo-hyperprior-msssim-{quality}" for quality in (1, 4, 8)]
    assert list(shipped_codecs()) == names
    for name in names:
        assert locate_codec(name).stat().st_size <= 4e6


def test_a_file_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / f"{NAME}.metagraph").write_bytes(b"cached")
    assert locate_codec(NAME, cache).read_bytes() == b"cached"
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (here / NAME).write_bytes(b"here")
    assert locate_codec(NAME, cache).read_bytes() == b"here"


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CodecNotFoundError, match=f"run 'latentset codec fetch {NAME}'"):
        locate_codec(NAME, tmp_path)
    with pytest.raises(CodecNotFoundError, match=r"no codec 'nothing'.*demo-hyperprior-msssim-1"):
        locate_codec("nothing", tmp_path)
    (tmp_path / "outside.metagraph").write_bytes(b"")
    inner = tmp_path / "cache"
    inner.mkdir()
    with pytest.raises(CodecNotFoundError):
        locate_codec("../outside", inner)


def test_the_catalogue_needs_no_tensorflow() -> None:
    code = (
        "import sys; from latentset.pipeline.codec.catalogue import list_codecs; list_codecs(); "
        "import latentset.cli.codec; print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_a_home_folder_only_what_needs_a_cache_asks_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LATENTSET_CACHE", raising=False)
    # What it gives where HOME is unset and the user has no entry of its own.
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: f"~/.cache/{name}")
    assert locate_codec("demo-hyperprior-msssim-1").is_file()
    for search in (list_codecs, default_cache, lambda: locate_codec(NAME)):
        with pytest.raises(StoreError, match="this user has no home"):
            search()
