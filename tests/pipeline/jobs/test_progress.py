import io
import itertools

import pytest
from rich.console import Console

from latentset.pipeline.jobs.progress import Bar, Lines, Speed, choose_view, format_time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that progress sees; its only element."""
    now = [100.0]
    monkeypatch.setattr("latentset.pipeline.jobs.progress.monotonic", lambda: now[0])
    return now


def test_speed_and_time_left(clock: list[float]) -> None:
    speed = Speed()
    clock[0] += 10
    assert speed.describe(0, 100) == ""
    clock[0] += 10
    assert speed.describe(40, 100) == "2.0 images/s, 0:30 left"


def test_speed_forgets_the_slow_start(clock: list[float]) -> None:
    speed = Speed()
    clock[0] += 1000  # the codec loads
    text = ""
    for done in range(0, 1000, 10):
        clock[0] += 1
        text = speed.describe(done, 2000)
    assert text == "10.0 images/s, 1:41 left"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (7322, "2:02:02")]
)
def test_durations(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


def test_plain_lines_come_seldom_and_end_with_everything(clock: list[float]) -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.begin("encoding", 100)
    for done in itertools.chain(range(1, 101), [100]):
        clock[0] += 0.25
        lines.update(done, 100)
    lines.end()
    assert stream.getvalue().splitlines() == [
        "encoding: 100 images",
        "encoding: 40 of 100 images (40 %), 4.0 images/s, 0:15 left",
        "encoding: 80 of 100 images (80 %), 4.0 images/s, 0:05 left",
        "encoding: 100 of 100 images (100 %), 4.0 images/s, 0:00 left",
    ]


def test_a_bar_shows_images_and_speed() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    bar = Bar(console)
    bar.begin("encoding", 50)
    bar.update(20, 40)
    bar.say("[not markup]")
    bar.end()
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "20/40" in text
    assert "images/s" in text
    assert "[not markup]" in text


def test_lines_are_chosen_where_there_is_no_terminal() -> None:
    assert isinstance(choose_view(), Lines)
