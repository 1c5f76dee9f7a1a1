"""Random numbers that depend on what they are for and on nothing else.

The order of an epoch and every sample's crop are pure functions of (seed, epoch, sample), the same
for any batch size, world size, machine and version of NumPy: a keyed hash, the finaliser of
SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014), chained.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

ORDER, CROP, MIXUP = 0, 1, 2
"""First number of a key: what the random numbers are for."""

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def random_bits(*key: int | Int64s) -> UInt64s:
    """Hash a key of non-negative integers, or arrays that broadcast, to uint64 of that shape."""
    bits = np.zeros(1, np.uint64)
    for number in key:
        bits = bits + _GOLDEN + np.atleast_1d(np.asarray(number)).astype(np.uint64)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits = bits ^ (bits >> np.uint64(31))
    return bits


def random_uniform(*key: int | Int64s) -> npt.NDArray[np.float64]:
    """Hash a key, as ``random_bits``, to float64 uniform in [0, 1), with 53 random bits."""
    return np.asarray((random_bits(*key) >> np.uint64(11)) * 2.0**-53, np.float64)


def epoch_order(samples: Int64s, seed: int, epoch: int) -> Int64s:
    """Positions 0…N-1 of samples, int64 (N,) rows of the store's table, in one epoch's order."""
    return np.argsort(random_bits(ORDER, seed, epoch, samples), kind="stable")


def divide(
    order: Int64s, batch_size: int, *, drop_last: bool, rank: int = 0, world_size: int = 1
) -> Iterator[Int64s]:
    """Divide an epoch's order, int64 (N,), into the batches of one rank.

    Each rank takes its part, at least one sample, of the same global batches. With ``drop_last`` a
    smaller last one is dropped; otherwise one without a sample for each rank joins the one before.
    If N < ``world_size``, the last ranks have no batch.
    """
    ends = batch_ends(len(order), batch_size, drop_last=drop_last, world_size=world_size)
    for first, last in pairwise([0, *ends]):
        if (part := order[first:last][rank::world_size]).size:
            yield part


def batch_ends(samples: int, batch_size: int, *, drop_last: bool, world_size: int = 1) -> list[int]:
    """How many samples of an epoch are done after each of its global batches."""
    end = samples - samples % batch_size if drop_last else samples
    ends = [*range(batch_size, end, batch_size), end] if end else []
    if len(ends) > 1 and ends[-1] - ends[-2] < world_size:
        del ends[-2]
    return ends
