"""How a job fares that is killed: kill -9 of a worker, the scheduler, the client, again and again.

    python benchmarks/kills.py [--count 200] [--seed 0] [--lanes 2]

In the encode environment. Each job encodes 40 made-up images with a stand-in codec of a few
lines (tests/makers/standin.py), so that a run takes seconds; everything else is the real
thing: `latentset encode` and its own worker, or a `dask scheduler` and a `dask worker`, as
processes. Moments are spread over the time of an undisturbed run, from its first trace on disk
(the lock) to its end. After each kill the same command is run until it succeeds, and every byte of
the store is compared with the undisturbed one. Prints counts, and each case that went wrong.
"""

import argparse
import importlib
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import measure  # noqa: F401


def main() -> int:
    """Kill, run again, compare, count; the exit status is 1 if a store differed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lanes", type=int, default=2, help="jobs side by side")
    options = parser.parse_args()
    killing: Any = importlib.import_module("tests.makers.killing")
    standin: Any = importlib.import_module("tests.makers.standin")
    began = time.monotonic()
    outcomes = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        standin.write_images(folder / "images", killing.SIZES, killing.IMAGES)
        scene = killing.Scene(folder / "images", folder)
        with ThreadPoolExecutor(options.lanes) as lanes:
            list(lanes.map(scene.measure, (False, True)))
            kills = killing.draw_kills(options.seed, options.count)
            running = [lanes.submit(scene.play, kill, f"{k:04d}") for k, kill in enumerate(kills)]
            for number, future in enumerate(as_completed(running), 1):
                outcomes.append(future.result())
                if number % 20 == 0:
                    print(f"{number} of {len(kills)}", file=sys.stderr, flush=True)
    print_counts(outcomes, began)
    return int(not all(outcome.equal for outcome in outcomes))


def print_counts(outcomes: list[Any], began: float) -> None:
    """Print what came of it, by what was killed."""
    phases = ("planning", "encoding", "finishing", "ended")
    print(f"{'killed':10s} {'jobs':>5s} {'equal':>6s}  killed while", *(f"{p:>9s}" for p in phases))
    for kind in ("worker", "scheduler", "client", "all"):
        of = [o for o in outcomes if kind in (o.kill.kind, "all")]
        found = Counter(o.phase for o in of)
        equal = sum(o.equal for o in of)
        print(f"{kind:10s} {len(of):5d} {equal:6d} {'':13s}", *(f"{found[p]:9d}" for p in phases))
    print(f"commands run: {sum(o.runs for o in outcomes)}")
    shards, redone = sum(o.shards for o in outcomes), sum(o.redone for o in outcomes)
    print(f"shards recorded when the kill came: {shards}; of these done again: {redone}")
    print(f"seconds: {time.monotonic() - began:.0f}")
    for outcome in outcomes:
        if not outcome.equal:
            print(outcome)


if __name__ == "__main__":
    sys.exit(main())
