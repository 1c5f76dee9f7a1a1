"""Files that get their name when they are whole."""

import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from latentset.datasets.storage.atomic import atomic_file, check_writable, write_atomically


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_decides_who_may_read(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_file(tmp_path / "a") as partial:
            partial.write_bytes(b"a")
            partial.chmod(0o600)  # as safetensors does
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_a_link_at_the_target_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "a").symlink_to("elsewhere")
    with atomic_file(tmp_path / "a") as partial:
        partial.write_text("new")
    assert (tmp_path / "elsewhere").read_text() == "mine"
    assert not (tmp_path / "a").is_symlink()


def test_a_target_is_tried_before_work(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(IsADirectoryError, match="folder'"):
        check_writable(tmp_path / "folder")
    for below in ("file/a", "file/b/c"):
        with pytest.raises(NotADirectoryError, match="file'"):
            check_writable(tmp_path / below)
    check_writable(tmp_path / "file")
    check_writable(tmp_path / "new/folder/a")
    with pytest.raises(OSError, match=r"File name too long: '[^.]*/xxx"):
        check_writable(tmp_path / ("x" * 300))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "mine"


def test_errors_name_the_target(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="folder'"):
        write_atomically(tmp_path / "folder", b"a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as a full disk
    try:
        with pytest.raises(OSError, match=r"large: '[^']*/a'"):
            write_atomically(tmp_path / "a", b"a" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_two_processes_write_one_file(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; "
        "from latentset.datasets.storage.atomic import write_atomically\n"
        "for k in range(200): write_atomically(Path(sys.argv[1]), sys.argv[2] * 1000)"
    )
    target = tmp_path / "results.csv"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(target), letter]) for letter in "abc"
    ]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert target.read_text() in {letter * 1000 for letter in "abc"}
    assert list(tmp_path.iterdir()) == [target]
