"""How many images a running job has done, told by tasks that run and by tasks that are finished."""

import threading

from latentset.pipeline.encode.shard import ShardDone
from latentset.pipeline.jobs.progress import ProgressView


class Tally:
    """Counts images and shows them.

    Args:
        total: Images of the job.
        stores: Stores that it makes.
        view: Where to show progress.
    """

    def __init__(self, total: int, stores: int, view: ProgressView) -> None:
        self._lock = threading.Lock()
        self._view = view
        self._done: dict[int, int] = {}
        self._finished: set[int] = set()
        self.skipped = 0
        """Images of shards that are done in all stores."""
        self.total = total
        """Images of the job."""
        self.encoded = [0] * stores
        """For each store, images that this run worked on."""
        self.reused = [0] * stores
        """For each store, images of shards that an earlier run had finished."""

    def hear(self, message: dict[str, int]) -> None:
        """Take a running task's message; called in the client's own thread."""
        with self._lock:
            if message["index"] not in self._finished:
                self._done[message["index"]] = message["done"]
                self._show()

    def finish(self, result: ShardDone) -> None:
        """Take a finished task's summary."""
        with self._lock:
            self._finished.add(result.index)
            for k, reused in enumerate(result.reused):
                counts = self.reused if reused else self.encoded
                counts[k] += result.samples
            if all(result.reused):
                self.skipped += result.samples
                self._done.pop(result.index, None)
            else:
                self._done[result.index] = result.samples
            self._show()

    def _show(self) -> None:
        self._view.update(sum(self._done.values()), self.total - self.skipped)
