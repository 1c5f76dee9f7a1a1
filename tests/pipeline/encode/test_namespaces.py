"""Workers in network namespaces of their own: scheduler and workers share nothing but TCP."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from latentset.datasets.sources import Source
from latentset.pipeline.jobs.tasks import JobResult
from tests.makers import PYTHONPATH

Run = Callable[..., JobResult]
Content = Callable[[Path], dict[str, bytes]]

TIMEOUT_S = 120
WORKERS = 2
BRIDGE = f"ls{os.getpid() % 100000}"
NETWORK = "10.213.77"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextmanager
def namespaces(count: int) -> Iterator[list[str]]:
    """Namespaces on one bridge: this process has address 1 on it, the namespaces 2, 3, …"""
    names = [f"{BRIDGE}n{k}" for k in range(count)]
    with ExitStack() as stack:
        ip("link", "add", BRIDGE, "type", "bridge")
        stack.callback(ip, "link", "delete", BRIDGE)
        ip("address", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for k, name in enumerate(names):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "delete", name)
            outside = f"{BRIDGE}v{k}"
            ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", outside, "master", BRIDGE, "up")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "address", "add", f"{NETWORK}.{k + 2}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield names


@pytest.fixture
def isolated() -> Iterator[list[str]]:
    """Names of the namespaces; skips where they cannot be made."""
    if shutil.which("ip") is None:
        pytest.skip("no `ip` here to make network namespaces with")
    with ExitStack() as stack:
        try:
            names = stack.enter_context(namespaces(WORKERS))
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {' '.join(error.cmd)}: {error.stderr}")
        yield names


@contextmanager
def dask(namespace: str | None, *arguments: str) -> Iterator[None]:
    """A Dask command, in a namespace or where this process is."""
    inside = ["ip", "netns", "exec", namespace] if namespace else []
    process = subprocess.Popen(
        [*inside, sys.executable, "-m", "dask", *arguments],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"},
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def test_workers_in_their_own_networks_write_the_same_store(
    isolated: list[str], run: Run, mixed: Source, content: Content, tmp_path: Path
) -> None:
    import distributed

    address = f"tcp://{NETWORK}.1:18786"
    dashboard = ["--dashboard-address", ":0"]
    with ExitStack() as stack:
        where = ["--host", f"{NETWORK}.1", "--port", "18786"]
        stack.enter_context(dask(None, "scheduler", *where, *dashboard))
        for k, namespace in enumerate(isolated):
            own = ["--host", f"{NETWORK}.{k + 2}", "--nthreads", "1", "--nanny"]
            scratch = ["--local-directory", str(tmp_path / f"scratch{k}")]
            stack.enter_context(dask(namespace, "worker", address, *own, *scratch, *dashboard))
        library: Any = distributed
        with library.Client(address, timeout=TIMEOUT_S, set_as_default=False) as client:
            client.wait_for_workers(WORKERS, timeout=TIMEOUT_S)
            hosts = {info["host"] for info in client.scheduler_info()["workers"].values()}
            assert hosts == {f"{NETWORK}.{k + 2}" for k in range(WORKERS)}
            result = run(mixed, tmp_path / "far", scheduler=address)
            done_by = client.run(count_loaded)
    assert result.encoded == 40
    assert all(done_by.values()), done_by  # each loaded the codec: it was not sent
    assert set(done_by.values()) == {1}  # and once
    run(mixed, tmp_path / "near")
    assert content(tmp_path / "far") == content(tmp_path / "near")


def count_loaded() -> int:
    """How often this process has loaded a codec; sent to the workers by value."""
    import importlib

    return len(importlib.import_module("tests.makers.standin").loaded)
