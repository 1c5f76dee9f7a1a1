"""How long a codec takes for one image: Table 2's "enc. time" and "dec. time"."""

import platform
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from latentset.pipeline.codec.load.codec import Codec
from latentset.pipeline.tensorflow_setup import CPU_ISA, environment

WARM_UP = 2
"""Runs of each that are not counted: TensorFlow prepares a graph in the first of a size."""


class CodecTime(BaseModel):
    """Wall times of one codec for one image, medians, in ms; batch 1."""

    model_config = ConfigDict(frozen=True)

    encode_ms: float
    """Image to strings."""
    decode_ms: float
    """Strings to image."""
    analysis_ms: float
    """Image to symbols and scale indexes: what `latentset encode` computes."""
    synthesis_ms: float
    """Symbols to image: what `latentset decode` computes."""
    image: tuple[int, int]
    """Height and width."""
    repeat: int


class CodecTimes(BaseModel):
    """The file of `latentset codec time --json`; times by the codec's name."""

    model_config = ConfigDict(frozen=True)

    machine: str
    codecs: dict[str, CodecTime]


def time_codec(codec: Codec, pixels: NDArray[np.uint8], repeat: int) -> CodecTime:
    """Measure a codec on one image, uint8 (H, W, 3): medians of ``repeat`` runs, taken in turns."""
    batch, size = pixels[np.newaxis], (pixels.shape[0], pixels.shape[1])
    strings = codec.sender(pixels)
    latents = codec.encode(batch)
    runs: dict[str, Callable[[], object]] = {
        "encode_ms": lambda: codec.sender(pixels),
        "decode_ms": lambda: codec.receiver(strings),
        "analysis_ms": lambda: codec.encode(batch),
        "synthesis_ms": lambda: codec.decode(latents.y_hat, latents.z_hat, size),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(WARM_UP + repeat):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - start))
    medians = {name: round(statistics.median(t[WARM_UP:]), 3) for name, t in times.items()}
    return CodecTime(**medians, image=size, repeat=repeat)


def describe_machine(threads: int) -> str:
    """Return, for instance, ``AMD EPYC 7R13, 1 thread, TensorFlow 2.14.1 with oneDNN, avx2``."""
    found = environment()
    device = _processor() if found["device"] == "CPU" else found["device"]
    onednn = " with oneDNN" if found["onednn"] == "1" else ""
    used = f"{threads} thread{'' if threads == 1 else 's'}"
    return f"{device}, {used}, TensorFlow {found['tensorflow']}{onednn}, {CPU_ISA.value}"


def _processor() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(v.partition(":")[2].strip() for v in lines if v.startswith("model name"))
    return platform.processor() or platform.machine()
