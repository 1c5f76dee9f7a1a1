"""No error reaches the user as a traceback, unless asked for."""

import sys
import threading

import pytest

from latentset.cli import main as module


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (
            OSError(28, "No space left on device", "/full/file"),
            "cannot read or write /full/file: No space left",
        ),
        (
            PermissionError(13, "Permission denied", "/x"),
            "error: cannot read or write /x: Permission denied. Look at",
        ),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    ],
)
def test_one_line_and_status_1(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    shown: str,
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(module, "app", fail)
    monkeypatch.setattr(module, "_debug", False)
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 1
    text = " ".join(capsys.readouterr().err.split())
    assert shown in text
    assert "Traceback" not in text


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_debug", False)  # and back again afterwards
    monkeypatch.setattr(sys, "argv", ["latentset", "--debug", "inspect", "nothing-there"])
    with pytest.raises(Exception, match="is not a LatentSet store") as raised:
        module.main()
    assert not isinstance(raised.value, SystemExit)


def test_ctrl_c_that_a_librarys_error_hides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        lock = threading.Condition()
        with lock:
            lock.release()  # as where Ctrl-C comes in the middle of Condition.wait
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "app", fail)
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 130
    assert not capsys.readouterr().err
