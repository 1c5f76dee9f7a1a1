"""Workers compute with the job's vector instructions whatever their own environment says."""

import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentset.datasets.errors import CpuIsaError, SettingsChangedError
from latentset.datasets.sources import Source, open_source
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.store import open_store
from latentset.datasets.store.verify import verify
from latentset.pipeline.cpu_isa import VARIABLE
from latentset.pipeline.encode.encode import EncodeOptions, encode
from latentset.pipeline.recompute import prepare

CODEC = "demo-hyperprior-msssim-8"
WEIGHTS = Path(__file__).parents[3] / "pipeline" / "codec" / "weights" / f"{CODEC}.metagraph"

SEEDS = (1, 2, 9, 45)
"""Of images whose symbols were seen to differ: 1, 2, 9 and 45 between SSE4.1 and AVX-512, 1 and 45
between AVX2 and AVX-512."""

pytestmark = [
    pytest.mark.skipif(not WEIGHTS.exists(), reason=f"{CODEC} is not shipped"),
    pytest.mark.skipif(
        platform.machine() not in ("x86_64", "AMD64")
        or not import_module("numpy.core._multiarray_umath").__cpu_features__["AVX2"],
        reason="this CPU has no AVX2",
    ),
]


@pytest.fixture
def noise(tmp_path: Path) -> Source:
    (tmp_path / "noise" / "a").mkdir(parents=True)
    for seed in SEEDS:
        pixels = np.random.default_rng(seed).integers(0, 256, (256, 256, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "noise" / "a" / f"{seed:02d}.png")
    return open_source(tmp_path / "noise")


@contextmanager
def process(*command: str, log: Path, **environment: str) -> Iterator[None]:
    dropped = (VARIABLE, "ONEDNN_MAX_CPU_ISA")
    with log.open("ab") as output:
        started = subprocess.Popen(
            [sys.executable, "-m", "dask", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={k: v for k, v in os.environ.items() if k not in dropped} | environment,
            start_new_session=True,
        )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


AVX512_OF_NUMPY = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL"


@contextmanager
def worker(folder: Path, *options: str, **environment: str) -> Iterator[str]:
    """A scheduler and a worker started by hand, in its own environment; the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    local = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
    alone = ("--nthreads", "1", "--no-nanny", "--local-directory", str(folder), *options)
    log = folder / "dask.log"
    with (
        process("scheduler", "--port", address.rpartition(":")[2], *local, log=log),
        process("worker", address, *local, *alone, log=log, OMP_NUM_THREADS="1", **environment),
    ):
        yield address


def test_environments_of_workers_change_no_byte(
    noise: Source, content: Callable[[Path], dict[str, bytes]], tmp_path: Path
) -> None:
    made = []
    for name, environment in (
        # NumPy has kernels of its own for AVX-512, whose exp and log2 have other last digits.
        ("low", {"ONEDNN_MAX_CPU_ISA": "SSE41", "NPY_DISABLE_CPU_FEATURES": AVX512_OF_NUMPY}),
        ("free", {VARIABLE: "native"}),
    ):
        with worker(tmp_path, **environment) as address:
            encode(noise, tmp_path / name, CODEC, EncodeOptions(scheduler=address))
        made.append(content(tmp_path / name))
    assert made[0] == made[1]
    header = open_store(tmp_path / "low").header
    assert (header.provenance.cpu_isa, header.format_version) == ("avx2", "1.2")
    assert verify(str(tmp_path / "low"), lambda *progress: None).outcome == "sound"


def test_a_worker_that_cannot_is_refused(noise: Source, tmp_path: Path) -> None:
    with (
        worker(tmp_path, NPY_DISABLE_CPU_FEATURES="AVX2") as address,
        pytest.raises(CpuIsaError, match="cannot compute with --cpu-isa avx2: its CPU has no AVX2"),
    ):
        encode(noise, tmp_path / "store", CODEC, EncodeOptions(scheduler=address))


def test_a_worker_with_another_level_is_refused(noise: Source, tmp_path: Path) -> None:
    preload = ("--preload", "latentset.pipeline.tensorflow_setup")
    with (
        worker(tmp_path, *preload, LATENTSET_CPU_ISA="native") as address,
        pytest.raises(CpuIsaError, match="instructions 'native', and 'avx2' is wanted, too late"),
    ):
        encode(noise, tmp_path / "store", CODEC, EncodeOptions(scheduler=address))


def latentset(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", "from latentset.cli.main import main; main()"]
        + [str(argument) for argument in arguments],
        env=os.environ | {"COLUMNS": "1000", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_native_is_what_stores_of_before_are(noise: Source, tmp_path: Path) -> None:
    store, small = tmp_path / "store", "demo-hyperprior-msssim-1"
    options = ("--codec", small, "--workers", 1, "--resize", "exact:64")
    made = latentset("encode", noise.root, store, *options, "--cpu-isa", "native")
    assert made.returncode == 0, made.stderr
    header = open_store(store).header
    assert header.provenance.cpu_isa is None
    assert "cpu_isa" not in (store / "zarr.json").read_text()
    with pytest.raises(SettingsChangedError, match=r"software\.cpu_isa: native before, avx2 now"):
        encode(noise, store, small, EncodeOptions(resize=ResizeRule.parse("exact:64")))
    checked = latentset("verify", store, "--recompute", 1, "--source", noise.root)
    assert checked.returncode == 0, checked.stdout
    assert "cpu_isa: native: the store does not say which CPU" in checked.stdout
    # This process computes with AVX2, too late to change.
    prepared = prepare(open_store(store), noise.root, None, 1, 0)
    assert prepared.software[0].startswith(
        "not as when the store was made: cpu_isa: native then, avx2 now ("
    )
