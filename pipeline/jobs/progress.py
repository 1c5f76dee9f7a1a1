"""What a person sees of a running job: a bar on a terminal, plain lines elsewhere, or nothing."""

import sys
from datetime import timedelta
from time import monotonic
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.text import Text

WINDOW_S = 60.0
"""Seconds over which speed is averaged: the slow start, while codecs load, is forgotten."""

LINE_EVERY_S = 10.0
"""Seconds between plain lines."""


class ProgressView:
    """Where a job reports how far it is; this one shows nothing."""

    def say(self, text: str) -> None:
        """Print a message."""

    def begin(self, what: str, total: int) -> None:
        """Start a stage of ``total`` images."""

    def update(self, done: int, total: int) -> None:
        """``done`` of ``total`` images are done."""

    def end(self) -> None:
        """The stage is over, finished or not."""


def describe_speed(task: Task) -> str:
    """For instance ``24.1 images/s, 0:01:43 left``; empty as long as rich has no estimate."""
    if not task.speed or task.time_remaining is None:
        return ""
    digits = 1 if task.speed >= 1 else 2
    return f"{task.speed:.{digits}f} images/s, {timedelta(seconds=task.time_remaining)} left"


class _SpeedColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(describe_speed(task))


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("images"),
        _SpeedColumn(),
        console=console,
        speed_estimate_period=WINDOW_S,
        get_time=monotonic,
    )


class Bar(ProgressView):
    """A bar on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = _progress(console)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(escape(text), highlight=False)

    def begin(self, what: str, total: int) -> None:
        """Show the bar."""
        self.end()
        self._progress = _progress(self._console)
        self._progress.add_task(what, total=total)
        self._progress.start()

    def update(self, done: int, total: int) -> None:
        """Move the bar."""
        self._progress.update(TaskID(0), completed=done, total=total)

    def end(self) -> None:
        """Leave the bar as it is."""
        self._progress.stop()


class Lines(ProgressView):
    """Plain lines for logs, at most one every ten seconds; rich only estimates the speed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._progress = _progress(Console(quiet=True))
        self._shown, self._last = 0.0, ""

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, file=self._stream, flush=True)

    def begin(self, what: str, total: int) -> None:
        """Print what starts."""
        self._progress = _progress(Console(quiet=True))
        self._progress.add_task(what, total=total)
        self._shown, self._last = monotonic(), ""
        self.say(f"{what}: {total} images")

    def update(self, done: int, total: int) -> None:
        """Print how far it is, if the last line is old enough or everything is done."""
        self._progress.update(TaskID(0), completed=done, total=total)
        now = monotonic()
        if now - self._shown < LINE_EVERY_S and done < total:
            return
        (task,) = self._progress.tasks
        percent = 100 * done // total if total else 100
        line = f"{task.description}: {done} of {total} images ({percent} %)"
        if line != self._last:
            self._shown, self._last = now, line
            speed = describe_speed(task)
            self.say(f"{line}, {speed}" if speed else line)


def choose_view() -> ProgressView:
    """A bar if standard error is a terminal, plain lines otherwise."""
    console = Console(stderr=True)
    return Bar(console) if console.is_terminal else Lines(sys.stderr)
