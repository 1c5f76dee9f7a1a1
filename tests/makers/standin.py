"""A codec of a few lines and images made up: the encode job is tested without TensorFlow.

Worker processes import it by this name: conftest.py puts its folder on the path. Its name chooses
how it behaves: ``standin`` plainly, ``standin:overflow`` with a y_hat beyond int16 for
images that are all white, ``standin:index`` with a scale index beyond the table for these,
``standin:kill`` by killing its process there, ``standin:nan`` with a y_hat that is no number,
``standin:half`` with one that is no integer, ``standin:graph`` with an error, ``standin:bits`` with
a size that is no number, each for these; ``standin:other`` as another codec with other latents,
``standin:wide`` as one with twice the channels; ``standin:unsound`` fails its self-check, late.
"""

import hashlib
import math
import os
import resource
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentset.datasets.errors import CodecGraphError
from latentset.datasets.store.header import CodecInfo
from latentset.pipeline.jobs.coder import Engine

CHANNELS, Z_CHANNELS = 6, 2
FACTOR = np.array([1, -1, 2, -2, 3, 5])

loaded: list[str] = []
"""Every codec that this process has loaded."""

PASSED = 6
"""Batches of a process that come through the gate."""

batches = 0
"""Batches of this process."""

environment: dict[str, str] = {
    "tensorflow": "stand-in",
    "tensorflow_compression": "stand-in",
    "onednn": "1",
    "device": "CPU",
}


@dataclass(frozen=True)
class StandInLatents:
    y_hat: NDArray[Any]
    scale_index: NDArray[Any]
    z_hat: NDArray[Any]


def block_means(images: NDArray[Any], side: int) -> NDArray[Any]:
    """Means over blocks of side x side pixels, rounded down; the image is padded with its edge."""
    pads = [(0, 0), *((0, -size % side) for size in images.shape[1:3])]
    padded = np.pad(images.astype(np.int64).sum(-1), pads, mode="edge")
    n, height, width = padded.shape
    blocks = padded.reshape(n, height // side, side, width // side, side)
    return np.asarray(blocks.sum((2, 4)) // (3 * side * side))


def wait_at_gate() -> None:
    """Wait after the first batches of this process for the file LATENTSET_STANDIN_GATE.

    So a test can stop a job in its middle, however fast or slow the machine is.
    """
    global batches
    batches += 1
    gate = os.environ.get("LATENTSET_STANDIN_GATE")
    while gate is not None and batches > PASSED and not Path(gate).exists():
        time.sleep(0.05)


def use_up_memory() -> None:
    """Where LATENTSET_STANDIN_MIB is set, ask for more memory than that, and be refused."""
    limit = os.environ.get("LATENTSET_STANDIN_MIB")
    if limit is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        allowed = pages * resource.getpagesize() + (int(limit) << 20)
        resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
        np.ones(2 * int(limit) << 20, np.uint8)


class StandIn:
    def __init__(self, name: str) -> None:
        self.kind = name.partition(":")[2]
        self.info = CodecInfo(
            name=name,
            sha256=hashlib.sha256(
                self.kind.encode() if self.kind in ("other", "wide") else b"standin"
            ).hexdigest(),
            form="tfc2",
            tensors={"y_hat": "y:0"},
            channels=2 * CHANNELS if self.kind == "wide" else CHANNELS,
            z_channels=Z_CHANNELS,
            scale_table=tuple(math.exp(0.1 * k) for k in range(64)),
            z_offset=(0.5, -0.25),
        )

    def encode(self, images: NDArray[np.uint8]) -> StandInLatents:
        assert images.dtype == np.uint8
        wait_at_gate()
        use_up_memory()
        white = (images == 255).all((1, 2, 3))
        if self.kind == "kill" and white.any():
            os.kill(os.getpid(), signal.SIGKILL)
        mean = block_means(images, 16)
        factor = np.tile(FACTOR, self.info.channels // CHANNELS)
        y_hat = (mean[..., None] - (100 if self.kind == "other" else 128)) * factor
        index = np.repeat(mean[..., None] // 4, self.info.channels, -1)
        z_hat = np.repeat(block_means(images, 64)[..., None] - 128, Z_CHANNELS, -1)
        if self.kind == "overflow":
            y_hat[white, 0, 0, 0] = 40000
        if self.kind == "index":
            index[white, 0, 0, 0] = 64
        if self.kind in ("nan", "half") and white.any():
            y_hat = y_hat.astype(np.float32)
            y_hat[white, 0, 0, 0] = np.nan if self.kind == "nan" else 0.5
        if self.kind == "graph" and white.any():
            raise CodecGraphError("expected y_hat to hold integers, it holds others")
        return StandInLatents(y_hat, index, z_hat)

    def decode(
        self, y_hat: NDArray[Any], z_hat: NDArray[Any], size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """Grey squares of 16x16 pixels, of the mean that was encoded."""
        wait_at_gate()
        use_up_memory()
        mean = y_hat[..., 0].astype(np.int64) + 128
        if self.kind == "graph" and (mean == 255).any():
            raise CodecGraphError("expected images, got none")
        large = mean.repeat(16, 1).repeat(16, 2)[:, : size[0], : size[1], None]
        return np.repeat(large, 3, -1).astype(np.uint8)

    def check_decoding(self) -> None:
        pass

    def rate_bits(self, latents: StandInLatents) -> NDArray[np.float64]:
        bits = np.asarray(np.abs(latents.y_hat).sum((1, 2, 3)), np.float64)
        if self.kind == "bits":
            bits[(latents.y_hat[..., 0] == 255 - 128).all((1, 2))] = np.nan  # of white
        return bits


def load(name: str, /, *, self_check: bool) -> StandIn:
    loaded.append(name)
    log = os.environ.get("LATENTSET_STANDIN_LOADS")
    if log is not None:
        with Path(log).open("a") as file:
            print(os.getpid(), self_check, file=file)
    if self_check and name == "standin:unsound":
        time.sleep(1)
        raise CodecGraphError("self-check: the bitstreams have other bits")
    return StandIn(name)


def read_environment() -> Mapping[str, str]:
    """What the client says of itself; LATENTSET_STANDIN_DEVICE makes one worker differ."""
    device = os.environ.get("LATENTSET_STANDIN_DEVICE", environment["device"])
    return {**environment, "device": device}


def identify(name: str) -> tuple[str, str]:
    info = StandIn(name).info
    return info.name, info.sha256


ENGINE = Engine(load, read_environment, identify)


def write_images(folder: Path, sizes: tuple[tuple[int, int], ...], count: int) -> None:
    """Image k of class k % 2 has size sizes[k % len(sizes)]."""
    random = np.random.default_rng(0)
    for k in range(count):
        height, width = sizes[k % len(sizes)]
        coarse = random.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
        path = folder / "ab"[k % 2] / f"{k:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR).save(path)
