import numpy as np
import pytest

from latentset.train.data.order import (
    divide,
    epoch_order,
    random_bits,
    random_uniform,
)

SAMPLES = np.arange(100, 400, 3)


def test_hash_is_splitmix64() -> None:
    # The first output of the published generator for the seed 0.
    assert random_bits(0).tolist() == [0xE220A8397B1DCDAF]


def test_hash_depends_on_every_part_of_the_key() -> None:
    bits = [random_bits(*key)[0] for key in ((1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4), (1, 2))]
    assert len(set(bits)) == 5


def test_uniform_is_uniform() -> None:
    numbers = random_uniform(1, 0, 0, np.arange(100_000))
    counts = np.histogram(numbers, bins=100, range=(0, 1))[0]
    # Chi-squared of 99 degrees of freedom: 99.9 % of all are below 149.
    assert ((counts - 1000) ** 2 / 1000).sum() < 149
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.02


def test_order_is_a_permutation_and_pure() -> None:
    order = epoch_order(SAMPLES, seed=5, epoch=2)
    assert sorted(order.tolist()) == list(range(100))
    assert order.tolist() == epoch_order(SAMPLES, seed=5, epoch=2).tolist()


def test_order_differs_by_epoch_and_seed() -> None:
    first = epoch_order(SAMPLES, seed=5, epoch=2).tolist()
    assert first != epoch_order(SAMPLES, seed=5, epoch=3).tolist()
    assert first != epoch_order(SAMPLES, seed=6, epoch=2).tolist()


def test_order_does_not_depend_on_what_else_is_in_the_split() -> None:
    whole = SAMPLES[epoch_order(SAMPLES, seed=0, epoch=0)].tolist()
    part = SAMPLES[::2][epoch_order(SAMPLES[::2], seed=0, epoch=0)].tolist()
    assert part == [sample for sample in whole if sample in set(SAMPLES[::2].tolist())]


def test_every_place_is_as_likely() -> None:
    locations = [epoch_order(np.arange(50), seed=0, epoch=e).tolist().index(7) for e in range(2000)]
    counts = np.bincount(locations, minlength=50)
    # Chi-squared of 49 degrees of freedom: 99.9 % of all are below 86.
    assert ((counts - 40) ** 2 / 40).sum() < 86


def test_two_ranks_divide_each_batch_of_one() -> None:
    order = epoch_order(SAMPLES, seed=0, epoch=0)
    alone = [part.tolist() for part in divide(order, 8, drop_last=True)]
    zero = [part.tolist() for part in divide(order, 8, drop_last=True, rank=0, world_size=2)]
    one = [part.tolist() for part in divide(order, 8, drop_last=True, rank=1, world_size=2)]
    assert len(alone) == len(zero) == len(one) == 12
    for batch, left, right in zip(alone, zero, one, strict=True):
        assert len(left) == len(right) == 4
        assert sorted(left + right) == sorted(batch)


def test_last_batch() -> None:
    order = np.arange(10)
    assert [len(part) for part in divide(order, 4, drop_last=True)] == [4, 4]
    assert [len(part) for part in divide(order, 4, drop_last=False)] == [4, 4, 2]
    assert [len(part) for part in divide(order, 5, drop_last=True)] == [5, 5]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("samples", [3, 12, 13, 14, 15, 24, 25])
def test_all_ranks_have_the_same_number_of_batches(
    samples: int, ranks: int, drop_last: bool
) -> None:
    order = np.arange(samples)
    shares = [
        list(divide(order, 12, drop_last=drop_last, rank=rank, world_size=ranks))
        for rank in range(ranks)
    ]
    whole, rest = divmod(samples, 12)
    count = whole if drop_last else max(1, whole + (rest >= ranks))
    assert [len(share) for share in shares] == [count] * ranks
    assert all(part.size for share in shares for part in share)
    seen = sorted(k for share in shares for part in share for k in part.tolist())
    assert seen == list(range(samples - samples % 12 if drop_last else samples))
