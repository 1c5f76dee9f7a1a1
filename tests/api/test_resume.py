"""An epoch that is interrupted and resumed by other numbers of processes: each sample once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from latentset import Store
from latentset.datasets.errors import TrainingError
from latentset.torch import LatentBatches
from tests.makers.resuming import read_together


@pytest.mark.parametrize(
    ("batch_size", "worlds", "steps"),
    [
        (8, (1, 2, 4), (1, 2)),
        (8, (4, 1, 2), (3, 1)),
        (8, (2, 4, 1), (2, 3)),
        (9, (2, 1, 4), (2, 3)),  # 2 of the 47 samples remain for four processes
    ],
)
def test_processes_read_every_sample_once(
    batch_size: int,
    worlds: tuple[int, ...],
    steps: tuple[int, ...],
    mixed_store: Store,
    tmp_path: Path,
) -> None:
    options = {"batch_size": batch_size, "shuffle": True, "seed": 5}
    path = Path(str(mixed_store.location))
    seen: list[int] = []
    for ranks, count in zip(worlds, (*steps, None), strict=True):
        before = len(seen)
        seen += read_together(path, tmp_path, ranks, count, options)
        assert count is None or len(seen) - before == batch_size * count
    assert sorted(seen) == mixed_store.indices("train").tolist()


def part_of(store: Store, samples: int) -> Store:
    """The store with a split ``part`` of the first samples of train."""
    split = np.array(store.samples["split"].to_pylist(), object)
    split[store.indices("train")[:samples]] = "part"
    table = store.samples
    k = table.column_names.index("split")
    return replace(store, samples=table.set_column(k, table.schema.field("split"), [split]))


def read_rank(batches: LatentBatches, steps: int | None) -> list[int]:
    samples: list[int] = []
    for step, batch in enumerate(batches, 1):
        samples += batch.samples.tolist()
        assert len(batch.labels) > 0
        if step == steps:
            break
    return samples


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    samples=st.integers(1, 47),
    batch_sizes=st.tuples(*[st.integers(4, 20)] * 3),
    worlds=st.tuples(*[st.integers(1, 4)] * 3),
    steps=st.tuples(*[st.integers(1, 6)] * 2),
    shuffle=st.booleans(),
)
# Stopped after the last batch, which two samples without one for each process joined.
@example(samples=10, batch_sizes=(4, 4, 4), worlds=(3, 1, 1), steps=(2, 1), shuffle=False)
# Two samples remain for four processes.
@example(samples=10, batch_sizes=(8, 8, 8), worlds=(1, 4, 1), steps=(1, 1), shuffle=True)
def test_any_interruption(
    mixed_store: Store,
    samples: int,
    batch_sizes: tuple[int, ...],
    worlds: tuple[int, ...],
    steps: tuple[int, ...],
    shuffle: bool,
) -> None:
    store = part_of(mixed_store, samples)
    state: dict[str, Any] | None = None
    seen = []
    for size, ranks, count in zip(batch_sizes, worlds, (*steps, None), strict=True):
        states = []
        for rank in range(ranks):
            batches = LatentBatches(
                store,
                split="part",
                batch_size=size,
                shuffle=shuffle,
                rank=rank,
                world_size=ranks,
                arrays=["y_hat"],
            )
            if state is not None:
                batches.load_state_dict(state)
            if batches.epoch == 0:  # else all was read before the second interruption
                seen += read_rank(batches, count)
            states.append(batches.state_dict())
        state = states[0]
    assert sorted(seen) == store.indices("part").tolist()
    assert state is not None
    assert (state["epoch"], state["position"]) == (1, 0)


def test_with_drop_last_the_rest_is_that_of_one_process(mixed_store: Store) -> None:
    options: dict[str, Any] = {"batch_size": 8, "shuffle": True, "drop_last": True, "seed": 2}
    alone = read_rank(LatentBatches(mixed_store, **options), None)
    assert len(alone) == 40
    first = LatentBatches(mixed_store, **options)
    assert read_rank(first, 3) == alone[:24]
    rest: list[int] = []
    for rank in range(4):
        batches = LatentBatches(mixed_store, rank=rank, world_size=4, **options)
        batches.load_state_dict(first.state_dict())
        rest += read_rank(batches, None)
        assert len(rest) == 4 * (rank + 1)
    assert sorted(rest) == sorted(alone[24:])


def test_an_iteration_that_was_left_starts_again(mixed_store: Store) -> None:
    batches = LatentBatches(mixed_store, batch_size=8, shuffle=True)
    first = next(iter(batches)).samples.tolist()
    whole = read_rank(batches, None)
    assert whole[:8] == first
    assert len(whole) == 47
    assert batches.epoch == 1
    assert read_rank(batches, None) != whole


def test_the_last_batchs_state_is_the_end_of_the_epoch(mixed_store: Store) -> None:
    batches = LatentBatches(mixed_store, batch_size=8)
    *_, state = (batches.state_dict() for _ in batches)
    assert state["position"] == 47
    batches.load_state_dict(state)
    assert batches.epoch == 0
    assert read_rank(batches, None) == []
    assert batches.epoch == 1
    assert len(read_rank(batches, None)) == 47


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "another seed: expected 0, got 1"),
        ({"fingerprint": "a" * 64}, "another fingerprint: expected .*, got aaaa"),
        ({"split": "val"}, "another split: expected train, got val"),
        ({"samples": 46}, "another samples: expected 47, got 46"),
        ({"shuffle": True}, "another shuffle: expected False, got True"),
        ({"position": 48}, "position: expected at most 47, .* got 48"),
        ({"position": -1}, "position: Input should be greater than or equal to 0, got -1"),
        ({"position": 8.5}, "position: Input should be a valid integer"),
        ({"epoch": "0"}, "epoch: Input should be a valid integer, got '0'"),
        ({"version": 2}, "version: Input should be 1, got 2"),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
    ],
)
def test_a_state_that_does_not_fit(
    mixed_store: Store, change: dict[str, Any], message: str
) -> None:
    batches = LatentBatches(mixed_store, batch_size=8)
    with pytest.raises(TrainingError, match=message):
        batches.load_state_dict(batches.state_dict() | change)


@pytest.mark.parametrize("state", [{}, {"position": 3}])
def test_no_state(mixed_store: Store, state: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match="not a state of LatentBatches"):
        LatentBatches(mixed_store, batch_size=8).load_state_dict(state)
