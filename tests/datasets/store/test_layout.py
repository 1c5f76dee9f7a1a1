import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentset.datasets.errors import StoreError
from latentset.datasets.store import layout
from latentset.datasets.store.arrays import MIXED_CHUNK_ROWS, RowForm
from latentset.datasets.store.header import Layout
from latentset.datasets.store.layout import Assignment, append_rows, assign_rows, fits

KIB = 1 << 10


def assign(
    rows: list[int], z_rows: list[int], channels: int = 8, shard_bytes: int = 64 * KIB
) -> Assignment:
    return assign_rows(
        np.array(rows, np.int64),
        np.array(z_rows, np.int64),
        RowForm(2 * channels, MIXED_CHUNK_ROWS),
        shard_bytes,
    )


def test_equal_sizes_make_one_chunk_a_sample() -> None:
    placed = assign([16] * 40, [1] * 40, channels=8, shard_bytes=8 * 2 * 16 * 2)
    layout = placed.layout
    assert (layout.chunk_rows, layout.shard_rows, layout.shards) == (16, 32, 20)
    assert placed.first_row[:5].tolist() == [0, 16, 32, 48, 64]
    assert placed.shard[:5].tolist() == [0, 0, 1, 1, 2]
    assert (layout.z_chunk_rows, layout.z_shard_rows) == (2, 2)
    assert placed.z_first_row[:5].tolist() == [0, 1, 2, 3, 4]


def test_a_chunk_holds_a_sample_of_equal_ones_however_large() -> None:
    assert assign([768] * 3, [48] * 3).layout.chunk_rows == 768


def test_mixed_sizes_begin_at_chunks_and_skip_a_shard_that_is_too_full() -> None:
    placed = assign([300, 768, 10, 768], [20, 48, 1, 48], channels=192, shard_bytes=1)
    # 256-row chunks: 2, 3, 1 and 3 of them; a shard takes the largest sample, 3 chunks.
    assert placed.layout.chunk_rows == 256
    assert placed.layout.shard_rows == 768
    assert placed.shard.tolist() == [0, 1, 2, 3]
    assert placed.first_row.tolist() == [0, 768, 1536, 2304]


def test_samples_without_rows_get_a_task_but_no_rows() -> None:
    placed = assign([0, 16, 0, 16, 0], [0, 1, 0, 1, 0])
    assert placed.first_row.tolist() == [-1, 0, -1, 16, -1]
    assert placed.z_first_row.tolist() == [-1, 0, -1, 1, -1]
    assert placed.shard.tolist() == [0, 0, 0, 1, 1]


def test_no_sample_with_rows_is_refused() -> None:
    with pytest.raises(StoreError, match="none of 2 samples has latents"):
        assign([0, 0], [0, 0])


def test_a_large_collection_gets_shards_of_the_wanted_size() -> None:
    placed = assign([256] * 20000, [16] * 20000, channels=192, shard_bytes=32 << 20)
    assert placed.layout.shard_rows == 341 * 256  # 32 MiB / (192 * 2 bytes) = 87381 rows
    assert placed.layout.shards == 59


def test_a_shard_has_a_bounded_number_of_samples() -> None:
    placed = assign([1] * 100_000, [1] * 100_000, channels=1, shard_bytes=63 << 20)
    assert np.bincount(placed.shard).max() == 1024


def test_a_larger_shard_may_have_more_samples() -> None:
    placed = assign([1] * 100_000, [1] * 100_000, channels=1, shard_bytes=256 << 20)
    assert np.bincount(placed.shard).max() == 6250  # a sixteenth of them
    placed = assign([1] * 200_000, [1] * 200_000, channels=1, shard_bytes=256 << 20)
    assert np.bincount(placed.shard).max() == 8 * 1024


def test_shards_grow_before_there_are_too_many_for_a_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layout, "MAX_SHARDS", 10)
    placed = assign([16] * 400, [1] * 400, channels=8, shard_bytes=8 * 2 * 16 * 4)
    assert placed.layout.shards == 10  # of 40 samples, not of 4
    assert placed.layout.shard_rows == 16 * 40
    placed = assign([1] * 100_000, [1] * 100_000, channels=1, shard_bytes=1)
    assert placed.layout.shards <= 10


def test_a_set_that_no_readable_shards_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_SHARDS", 10)
    monkeypatch.setattr(layout, "MAX_SHARD_BYTES", 4096)
    with pytest.raises(StoreError, match=r"400 samples need more than 10 shards .* divide the set"):
        assign([16] * 400, [1] * 400, channels=8, shard_bytes=1024)


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 900), min_size=1, max_size=60).filter(any),
    shard_kib=st.integers(1, 600),
)
def test_rows_follow_the_specification(sizes: list[int], shard_kib: int) -> None:
    rows = np.array(sizes, np.int64)
    z_rows = -(-rows // 16)
    placed = assign_rows(rows, z_rows, RowForm(2 * 8, MIXED_CHUNK_ROWS), shard_kib * KIB)
    layout = placed.layout
    assert layout.shard_rows % layout.chunk_rows == 0
    taken: set[int] = set()
    z_taken: set[int] = set()
    for k in np.flatnonzero(rows):
        first, last = placed.first_row[k], placed.first_row[k] + rows[k] - 1
        assert first % layout.chunk_rows == 0
        assert first // layout.shard_rows == last // layout.shard_rows == placed.shard[k]
        assert taken.isdisjoint(range(first, last + 1))
        taken.update(range(first, last + 1))
        z_first, z_last = placed.z_first_row[k], placed.z_first_row[k] + z_rows[k] - 1
        assert z_first // layout.z_shard_rows == z_last // layout.z_shard_rows == placed.shard[k]
        assert z_taken.isdisjoint(range(z_first, z_last + 1))
        z_taken.update(range(z_first, z_last + 1))
    assert max(taken) < layout.shards * layout.shard_rows
    assert (np.diff(placed.shard) >= 0).all()
    assert placed.shard[-1] == layout.shards - 1


LAYOUT = Layout(
    chunk_rows=4, shard_rows=8, z_chunk_rows=2, z_shard_rows=4, shards=3, target_shard_bytes=1
)


def test_further_samples_go_into_new_shards_of_the_same_division() -> None:
    rows, z_rows = np.array([3, 4, 1, 4, 0]), np.array([1, 1, 1, 4, 0])
    placed = append_rows(rows, z_rows, LAYOUT)
    # The third is one too many for y_hat, the fourth for z_hat; the fifth has no latents.
    assert placed.shard.tolist() == [3, 3, 4, 5, 5]
    assert placed.first_row.tolist() == [24, 28, 32, 40, -1]
    assert placed.z_first_row.tolist() == [12, 13, 16, 20, -1]
    assert placed.layout == LAYOUT.model_copy(update={"shards": 6})


@pytest.mark.parametrize(
    ("rows", "z_rows", "expected"), [(8, 4, True), (9, 4, False), (8, 5, False), (0, 0, True)]
)
def test_what_fits_into_a_shard(rows: int, z_rows: int, expected: bool) -> None:
    assert fits(rows, z_rows, LAYOUT) == expected
