"""Waiting for workers, neither in silence nor for ever."""

from collections.abc import Callable
from time import monotonic

from latentset.datasets.errors import JobError

REMIND_S = 60.0
"""Seconds without a worker after which that is said, and said again."""


class Patience:
    """Waits for workers, not for ever and not in silence.

    Args:
        limit_s: Seconds without a worker after which to give up.
        say: Told from time to time that there is none.
        hint: Says what to do about it.
        check: Raises an error if waiting is in vain.
        progress: Told when there is a result.
    """

    def __init__(
        self,
        limit_s: float,
        say: Callable[[str], None],
        hint: Callable[[], str],
        check: Callable[[], None] = lambda: None,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._limit_s = limit_s
        self._say = say
        self._hint = hint
        self._check = check
        self._progress = progress
        self._since = self._said = monotonic()

    def look(self, workers: int) -> None:
        """Take note of how many workers there are.

        Args:
            workers: Their number.

        Raises:
            JobError: There has been none for too long, or there will be none.
        """
        self._check()
        if workers:
            self._since = self._said = monotonic()
            return
        now = monotonic()
        waited = now - self._since
        if waited > self._limit_s:
            raise JobError(f"no worker for {waited:.0f} s: {self._hint()}")
        if now - self._said > REMIND_S:
            self._said = now
            self._say(f"no worker for {waited:.0f} s: {self._hint()}")

    def got(self) -> None:
        """Take note of a result: there are workers, or were until a moment ago."""
        self._progress()
        self._since = self._said = monotonic()
