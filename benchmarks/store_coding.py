"""What other ways of storing latents would save: the same integers, coded otherwise.

    python benchmarks/store_coding.py STORE [--samples 100]

STORE is of images of one size. For samples picked at random: bytes a sample, as one inner
chunk each (channel by channel; blosc, zstd, bitshuffle, as the store), of ``scale_index`` and
``y_hat`` in several reversible forms, against the codec's own strings by ``rate_bpp``. Nothing is
written; the last form is fitted to other samples of the same store.

====================  ============================================================================
as stored             the store's numbers (Gray code of the index); y_hat as int16
left                  difference to the left neighbour
plane                 difference to left + above - above left; two cumulative sums undo it
zigzag                0, -1, 1, -2, 2, … become 0, 1, 2, 3, 4, …
seven channels        seven channels as plane; all others as what remains after a linear map from
                      the 3x3 neighbourhoods of those seven, with integer weights
====================  ============================================================================
"""

import argparse
from pathlib import Path
from typing import Any

import measure
import numcodecs
import numpy as np
from numpy.typing import NDArray

from latentset.datasets.store import open_store

KEYS = 7
"""Channels from which the others are predicted."""

Ints = NDArray[np.int16]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--samples", type=int, default=100)
    options = parser.parse_args()
    store = open_store(options.store)
    picked = np.random.default_rng(0).permutation(store.samples.num_rows)[: 2 * options.samples]
    read = [store.read_sample(int(k)) for k in picked]
    index = np.stack([sample["scale_index"] for sample in read]).astype(np.int16)  # (n, h, w, C)
    y_hat = np.stack([sample["y_hat"] for sample in read])
    table = store.samples.take(picked[: options.samples]).to_pylist()
    strings = np.mean([r["rate_bpp"] * r["height"] * r["width"] / 8 for r in table])
    fitted, index, y_hat = np.split(index, 2)[1], np.split(index, 2)[0], np.split(y_hat, 2)[0]
    keys = choose_channels(fitted)
    forms: dict[str, NDArray[Any]] = {
        "scale_index, as stored": (index ^ (index >> 1)).astype(np.uint8),
        "scale_index, left, zigzag": zigzag(np.diff(index, axis=2, prepend=0)).astype(np.uint8),
        "scale_index, plane, zigzag": zigzag(plane(index)).astype(np.uint8),
        "scale_index, seven channels": zigzag(predict(index, fitted, keys)).astype(np.uint8),
        "y_hat, as stored": y_hat,
        "y_hat, zigzag": zigzag(y_hat),
    }
    print(f"{len(index)} samples; strings {strings:,.0f} bytes a sample\n")
    print(f"{'':30s} {'level 5':>22s} {'level 9':>22s}")
    for name, values in forms.items():
        found = [chunk_bytes(values, level) for level in (5, 9)]
        cells = [f"{size:9,.0f} ({size / strings:5.3f} x)" for size in found]
        print(f"{name:30s} {cells[0]:>22s} {cells[1]:>22s}", flush=True)


def chunk_bytes(values: NDArray[Any], level: int) -> float:
    """Mean bytes of a sample (n, h, w, C) as a chunk, channel by channel."""
    codec = numcodecs.Blosc("zstd", level, numcodecs.Blosc.BITSHUFFLE)
    chunks = (np.ascontiguousarray(sample.reshape(-1, sample.shape[-1]).T) for sample in values)
    return float(np.mean([len(codec.encode(chunk)) for chunk in chunks]))


def zigzag(values: NDArray[Any]) -> NDArray[Any]:
    """Number integers by their size: 0, -1, 1, -2 and so on."""
    return np.where(values >= 0, 2 * values, -2 * values - 1)


def plane(values: Ints) -> Ints:
    """What remains after left + above - above left; outside is 0."""
    down = np.diff(values, axis=1, prepend=0)
    return np.asarray(np.diff(down, axis=2, prepend=0), np.int16)


def choose_channels(index: Ints) -> list[int]:
    """Choose the channels that tell most of the others, one after the other."""
    rest = index[:, ::2, ::2].reshape(-1, index.shape[-1]).astype(float)
    rest -= rest.mean(0)
    chosen: list[int] = []
    for _ in range(KEYS):
        cross = rest.T @ rest / len(rest)
        noise, own = 1 / 12, np.diag(cross) + 1e-6
        left = np.maximum(own[None] - cross**2 / own[:, None], 0)
        gain = np.log((noise + own[None]) / (noise + left)).sum(1)
        gain[own < 0.05] = -1
        best = int(np.argmax(gain))
        chosen.append(best)
        column = rest[:, best]
        rest = rest - np.outer(column, column @ rest / (column @ column))
    return chosen


def neighbourhoods(index: Ints) -> NDArray[np.float64]:
    """The 3x3 neighbourhood of every position, and a 1 (positions, 9 C + 1); edges repeat."""
    height, width = index.shape[1:3]
    padded = np.pad(index, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge").astype(float)
    parts = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    rows = np.concatenate(parts, -1).reshape(-1, 9 * index.shape[-1])
    return np.concatenate([rows, np.ones((len(rows), 1))], 1)


def predict(index: Ints, fitted: Ints, keys: list[int]) -> Ints:
    """What remains of all channels but ``keys`` after the linear map; ``keys`` as plane."""
    known = neighbourhoods(fitted[..., keys])
    wanted = fitted.reshape(-1, fitted.shape[-1]).astype(float)
    solve = np.linalg.solve(known.T @ known + 0.1 * np.eye(known.shape[1]), known.T)
    at_bottom, weights = wanted == 0, solve @ wanted
    for _ in range(8):  # an index of 0 may stand for anything below: let it
        target = np.where(at_bottom, np.minimum(known @ weights, 0.3), wanted)
        weights = solve @ target
    integers = np.round(4096 * weights)
    guess = np.floor((neighbourhoods(index[..., keys]) @ integers + 2048) / 4096)
    missed = index - np.clip(guess, 0, 63).reshape(index.shape).astype(np.int16)
    rest = np.asarray((missed + 32) % 64 - 32, np.int16)
    rest[..., keys] = plane(index[..., keys])
    return rest


if __name__ == "__main__":
    measure.describe_machine()
    main()
