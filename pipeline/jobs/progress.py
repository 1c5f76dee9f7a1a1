"""What a person sees of a running job: a bar on a terminal, plain lines elsewhere, or nothing."""

import sys
from collections import deque
from time import monotonic
from typing import Protocol, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

WINDOW_S = 60.0
"""Seconds over which speed is averaged: the slow start, while codecs load, is forgotten."""

LINE_EVERY_S = 10.0
"""Seconds between plain lines."""


class ProgressView(Protocol):
    """Where a job reports how far it is."""

    def say(self, text: str) -> None:
        """Say one thing."""

    def begin(self, what: str, total: int) -> None:
        """Begin a stage of ``total`` images."""

    def update(self, done: int, total: int) -> None:
        """``done`` of ``total`` images are done."""

    def end(self) -> None:
        """The stage is over, finished or not."""


class Silence:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def begin(self, what: str, total: int) -> None:
        """Show nothing."""

    def update(self, done: int, total: int) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Show nothing."""


class Speed:
    """Images a second over the last ``WINDOW_S`` seconds, and the time left by it."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque([(monotonic(), 0)])

    def describe(self, done: int, total: int) -> str:
        """Take a mark and put it into words.

        Args:
            done: Images done.
            total: Images to do.

        Returns:
            For instance ``24.1 images/s, 1:43 left``; empty as long as nothing was done.
        """
        now = monotonic()
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[1][0] > WINDOW_S:
            self._marks.popleft()
        since, before = self._marks[0]
        if done <= before or now <= since:
            return ""
        speed = (done - before) / (now - since)
        digits = 1 if speed >= 1 else 2
        return f"{speed:.{digits}f} images/s, {format_time((total - done) / speed)} left"


def format_time(seconds: float) -> str:
    """Format a duration.

    Args:
        seconds: Its length.

    Returns:
        ``M:SS`` or ``H:MM:SS``.
    """
    minutes, second = divmod(round(max(0.0, seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


class Bar:
    """A bar on a terminal.

    Args:
        console: The terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._speed = Speed()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(escape(text), highlight=False)

    def begin(self, what: str, total: int) -> None:
        """Show the bar."""
        self.end()
        self._speed = Speed()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("images"),
            TextColumn("{task.fields[speed]}"),
            console=self._console,
        )
        self._task = self._progress.add_task(what, total=total, speed="")
        self._progress.start()

    def update(self, done: int, total: int) -> None:
        """Move the bar."""
        if self._progress is not None:
            speed = self._speed.describe(done, total)
            self._progress.update(self._task, completed=done, total=total, speed=speed)

    def end(self) -> None:
        """Leave the bar as it is."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class Lines:
    """Plain lines, at most one every ten seconds, for logs.

    Args:
        stream: Where they go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._what = ""
        self._speed = Speed()
        self._shown = 0.0
        self._last = ""

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, file=self._stream, flush=True)

    def begin(self, what: str, total: int) -> None:
        """Say what begins."""
        self._what, self._speed, self._last = what, Speed(), ""
        self._shown = monotonic()
        self.say(f"{what}: {total} images")

    def update(self, done: int, total: int) -> None:
        """Say how far it is, if the last line is old enough or everything is done."""
        now = monotonic()
        if now - self._shown < LINE_EVERY_S and done < total:
            return
        percent = 100 * done // total if total else 100
        line = f"{self._what}: {done} of {total} images ({percent} %)"
        if line != self._last:
            self._shown, self._last = now, line
            speed = self._speed.describe(done, total)
            self.say(f"{line}, {speed}" if speed else line)

    def end(self) -> None:
        """Nothing is left open."""


def choose_view() -> ProgressView:
    """Choose how to show progress on standard error.

    Returns:
        A bar if it is a terminal, plain lines otherwise.
    """
    console = Console(stderr=True)
    return Bar(console) if console.is_terminal else Lines(sys.stderr)
