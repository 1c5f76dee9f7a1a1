"""What the benchmarks share: repeated runs in turn, medians, ratios, and processes pinned to cores.

Every script here measures the two sides of its claim in one run, in turn (A, B, A, B, ...), so that
a machine that is slower for a minute is slower for both, and prints medians with the lowest and
highest run, the ratio of each pair of neighbours, and the bar of the claim.
"""

import json
import os
import platform
import re
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

sys.path.append(str(Path(__file__).parents[1]))  # for tests.makers: its stores are measured too

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables that keep a library of linear algebra to one thread."""

Work = Callable[[], int | tuple[int, float]]
"""A piece of work, done once by a call. It says how many items it did and, where not all of the
call is to be counted, in how many seconds."""

Works = Mapping[str, Work]
"""Pieces of work by name."""


@dataclass(frozen=True)
class Series:
    """The same quantity, measured several times."""

    name: str
    """What was measured."""
    values: tuple[float, ...]
    """One a run."""
    unit: str
    """Of the values."""

    @property
    def median(self) -> float:
        """The middle run."""
        return statistics.median(self.values)

    def show(self) -> "Series":
        """Print name, median, lowest and highest run; return the series."""
        low, high = (_digits(v) for v in (min(self.values), max(self.values)))
        print(
            f"{self.name:58s} {_digits(self.median):>9s} {self.unit} "
            f"({low} to {high}, {len(self.values)} runs)",
            flush=True,
        )
        return self


def ratio(
    name: str,
    above: Series,
    below: Series,
    bar: float | None = None,
    kind: Literal["at least", "at most"] = "at least",
) -> float:
    """Print the ratio of two series that were measured in turn, and whether it meets its bar.

    Args:
        name: What the ratio says.
        above: Numerator.
        below: Denominator; run k was measured next to run k of ``above``.
        bar: What was promised; None: nothing.
        kind: Side of the bar that is good.

    Returns:
        Median over the runs of the ratio of neighbours.
    """
    each = [a / b for a, b in zip(above.values, below.values, strict=True)]
    middle = statistics.median(each)
    line = f"{name:58s} {_digits(middle):>9s}   ({_digits(min(each))} to {_digits(max(each))})"
    print(line + judge(middle, bar, kind), flush=True)
    return middle


def judge(value: float, bar: float | None, kind: Literal["at least", "at most"]) -> str:
    """Say whether a value meets its bar; the empty text where there is none."""
    if bar is None:
        return ""
    met = value >= bar if kind == "at least" else value <= bar
    return f"   bar: {kind} {bar:g}: {'met' if met else 'MISSED'}"


def in_turn(works: Mapping[str, Callable[[], float]], repeats: int, unit: str) -> dict[str, Series]:
    """Run pieces of work in turn, and print what came out.

    Args:
        works: Each returns its figure (a rate, or seconds). The first turn warms up and is dropped.
        repeats: Turns that count.
        unit: Of the figures.

    Returns:
        Series by name.
    """
    values: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            value = work()
            if turn:
                values[name].append(value)
    return {name: Series(name, tuple(v), unit).show() for name, v in values.items()}


def rate(work: Work, seconds: float) -> float:
    """Repeat a piece of work for a while.

    Args:
        work: The work.
        seconds: At least this long.

    Returns:
        Items a second of wall-clock time.
    """
    items, counted, begun = 0, 0.0, time.perf_counter()
    while True:
        start = time.perf_counter()
        done = work()
        end = time.perf_counter()
        more, took = done if isinstance(done, tuple) else (done, end - start)
        items, counted = items + more, counted + took
        if end - begun >= seconds:
            return items / counted


class Workers:
    """Processes that do the same work at the same time, each kept to cores of its own.

    They are fresh processes, of this interpreter or another one: TensorFlow and PyTorch share
    none. In every library they have one thread, unless ``threads`` says otherwise.

    Args:
        setup: Function of a script's top level that returns the works; called in each process,
            with the number of the process first.
        arguments: What else it is given: plain values.
        cores: Cores of each process; one process for each entry.
        threads: Threads a process, told to the libraries by their environment variables.
        python: The interpreter; None is this one.
    """

    def __init__(
        self,
        setup: Callable[..., Works],
        *arguments: Any,
        cores: Sequence[Sequence[int]],
        threads: int = 1,
        python: Path | None = None,
    ) -> None:
        script = str(Path(setup.__code__.co_filename).resolve())
        self._pipes: list[Connection[Any, Any]] = []
        self._processes = []
        with Listener(family="AF_UNIX") as listener:
            for number, own in enumerate(cores):
                command = [python or sys.executable, __file__, listener.address]
                self._processes.append(subprocess.Popen(command, env=one_thread(threads)))
                self._pipes.append(listener.accept())
                self._pipes[-1].send((script, setup.__name__, set(own), number, arguments))
        for pipe in self._pipes:
            pipe.recv()  # ready

    def rate(self, name: str, seconds: float, members: int | None = None) -> float:
        """Let the first ``members`` processes (all) do a work at once.

        Args:
            name: Of the work.
            seconds: How long, at least.
            members: How many; the others wait.

        Returns:
            Items a second, of all together.
        """
        pipes = self._pipes[:members]
        for pipe in pipes:
            pipe.send((name, seconds))
        return float(sum(pipe.recv() for pipe in pipes))

    def __enter__(self) -> Self:
        """Nothing happens: the processes run already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _serve(address: str) -> None:
    """Be a process of a workers until it has no more work."""
    with Client(address, family="AF_UNIX") as pipe, suppress(EOFError):
        script, function, cores, number, arguments = pipe.recv()
        os.sched_setaffinity(0, cores)
        sys.path[0] = str(Path(script).parent)
        works = runpy.run_path(script, run_name="workers")[function](number, *arguments)
        pipe.send("ready")
        while True:
            name, seconds = pipe.recv()
            pipe.send(rate(works[name], seconds))


def cores() -> list[int]:
    """Return the cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def sibling(name: str, given: Path | None = None) -> Path:
    """Find the interpreter of another environment: TensorFlow and PyTorch share no process.

    Args:
        name: Of the environment, ``encode``, ``train`` or ``bench``: a folder beside this one's.
        given: What the user named, if anything.

    Returns:
        Path of the interpreter.
    """
    path = given or Path(sys.prefix).parent / name / "bin" / "python"
    if not path.is_file():
        raise SystemExit(
            f"no interpreter at {path}: make the environment (docs/performance.md), or name one "
            f"with --{name}-python"
        )
    return path


def one_thread(threads: int = 1) -> dict[str, str]:
    """Return this process's environment with libraries kept to some threads."""
    return {**os.environ, **dict.fromkeys(ONE_THREAD, str(threads))}


@dataclass(frozen=True)
class Ran:
    """A command that was run to its end."""

    seconds: float
    """From before it starts to after it ends."""
    cpu_seconds: float
    """Of it and its children."""
    peak_mib: float
    """Largest resident memory of a single process of them."""
    output: str
    """What it printed."""
    said: list[tuple[float, str]]
    """Lines on standard error, with seconds since the start."""


def run_latentset(*arguments: str | Path, **environment: str) -> Ran:
    """Run ``latentset`` of this environment, one thread a process.

    Args:
        *arguments: Its command line.
        **environment: Further variables.
    """
    command = [Path(sys.executable).parent / "latentset", *arguments]
    start = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(
            command,
            env={**one_thread(), **environment},
            text=True,
            stdout=output,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        said, peak_mib = [], 0.0
        for line in process.stderr or ():  # the last one comes when the workers are done
            said.append((time.perf_counter() - start, line.rstrip()))
            peak_mib = max(peak_mib, _peak_mib(process.pid))
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit("\n".join(line for _, line in said))
        output.seek(0)
        return Ran(
            seconds,
            usage.ru_utime + usage.ru_stime,
            peak_mib,
            output.read(),
            said,
        )


def _peak_mib(parent: int) -> float:
    """Most memory that a process or one of its descendants has had resident so far."""
    import psutil

    peak = 0.0
    with suppress(OSError, psutil.Error):
        process = psutil.Process(parent)
        for one in (process, *process.children(recursive=True)):
            status = Path(f"/proc/{one.pid}/status").read_text()
            found = re.search(r"VmHWM:\s+(\d+) kB", status)  # one that has just ended has none
            peak = max(peak, int(found[1]) / 1024 if found else 0.0)
    return peak


def run_script(python: Path, script: Path, *arguments: str, threads: int = 1) -> Any:
    """Run a part of a benchmark in another interpreter.

    Args:
        python: The interpreter.
        script: Its last line on standard output is JSON; what it says on standard error is shown.
        arguments: Its command line.
        threads: Threads of its libraries.

    Returns:
        The JSON.
    """
    command = [str(python), str(script), *arguments]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, env=one_thread(threads), check=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def describe_machine() -> None:
    """Print what the figures were measured on."""
    name = platform.processor()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(v.partition(":")[2].strip() for v in lines if v.startswith("model name"))
    busy = os.getloadavg()[0]
    print(f"{name}, {len(cores())} cores, load {busy:.1f}, Python {platform.python_version()}\n")


def _digits(value: float) -> str:
    """Three or four significant digits, thousands with commas."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    _serve(sys.argv[1])
