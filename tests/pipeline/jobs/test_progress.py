import io
import itertools

import pytest
from rich.console import Console

from latentset.pipeline.jobs.progress import Bar, Lines, choose_view


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that progress sees; its only element."""
    now = [100.0]
    monkeypatch.setattr("latentset.pipeline.jobs.progress.monotonic", lambda: now[0])
    return now


def test_no_speed_before_there_are_two_updates(clock: list[float]) -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.begin("encoding", 100)
    for done in (0, 10):
        clock[0] += 10
        lines.update(done, 100)
    assert stream.getvalue().splitlines()[1:] == [
        "encoding: 0 of 100 images (0 %)",
        "encoding: 10 of 100 images (10 %)",
    ]


def test_speed_forgets_the_slow_start(clock: list[float]) -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.begin("encoding", 2000)
    clock[0] += 1000  # the codec loads
    for done in range(0, 1000, 10):
        clock[0] += 1
        lines.update(done, 2000)
    assert stream.getvalue().splitlines()[-1] == (
        "encoding: 900 of 2000 images (45 %), 10.0 images/s, 0:01:50 left"
    )


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
        "encoding: 40 of 100 images (40 %), 4.0 images/s, 0:00:15 left",
        "encoding: 80 of 100 images (80 %), 4.0 images/s, 0:00:05 left",
        "encoding: 100 of 100 images (100 %), 4.0 images/s, 0:00:00 left",
    ]


def test_a_bar_shows_images_and_speed(clock: list[float]) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    bar = Bar(console)
    bar.begin("encoding", 40)
    for done in (10, 20):
        clock[0] += 2
        bar.update(done, 40)
    bar.say("[not markup]")
    bar.end()
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "20/40" in text
    assert "5.0 images/s, 0:00:04 left" in text
    assert "[not markup]" in text


def test_lines_are_chosen_where_there_is_no_terminal() -> None:
    assert isinstance(choose_view(), Lines)
