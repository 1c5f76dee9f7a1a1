"""Which codecs have names, and where their files are."""

import subprocess
import sys
from pathlib import Path

import pytest

from latentset.datasets.errors import CodecNotFoundError
from latentset.pipeline.codec.catalogue import (
    PUBLISHED,
    cache_folder,
    list_codecs,
    locate_codec,
    shipped_codecs,
)

NAME = "bmshj2018-hyperprior-mse-3"


def test_the_published_names() -> None:
    assert len(PUBLISHED) == len(set(PUBLISHED)) == 16
    assert PUBLISHED[0] == "bmshj2018-hyperprior-msssim-1"
    assert PUBLISHED[-1] == "bmshj2018-hyperprior-mse-8"


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
    assert entries[PUBLISHED[0]].path is None
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
        "import latentset.pipeline.codec.cli; print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
