"""Bits of symbols, against codes computed by hand and against the range coder itself."""

import math
from typing import Any

import numpy as np
import pytest

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.code_tables import (
    find_scales,
    gaussian_distances,
    log_spaced_scales,
    read_tfc1_table,
    read_tfc2_table,
)
from latentset.pipeline.tensorflow_setup import tf, tfc


def _row(values: list[int]) -> Any:
    return np.array(values, np.int32)


# Two rows in 4 bits. Row 0: symbols -1, 0, 1 with 4, 8, 2 sixteenths, escape 2.
# Row 1: symbols 5, 6 with 1 and 7, escape 8.
TFC2 = _row([-4, 0, 4, 12, 14, 16, -4, 0, 1, 8, 16])
OFFSET = _row([-1, 5])


def test_symbols_within_a_row() -> None:
    table = read_tfc2_table(TFC2, OFFSET)
    assert table.rows == 2
    bits = table.bits(_row([-1, 0, 1, 5, 6]), _row([0, 0, 0, 1, 1]))
    np.testing.assert_allclose(bits, [2, 1, 3, 4, 4 - math.log2(7)])


def test_symbols_beyond_a_row_in_the_second_generation() -> None:
    table = read_tfc2_table(TFC2, OFFSET)
    # The escape costs 3 bits; then gamma = distance from 1: 2 floor(log2 gamma) + 1 bits of Elias
    # gamma code, and one for the side.
    symbols = _row([2, 3, 4, 5, 9, -2, -3, -4, -5, 1001])
    gamma = [1, 2, 3, 4, 8, 1, 2, 3, 4, 1000]
    expected = [3 + 2 * math.floor(math.log2(g)) + 1 + 1 for g in gamma]
    np.testing.assert_allclose(table.bits(symbols, _row([0])), expected)


def test_symbols_beyond_a_row_in_the_first_generation() -> None:
    cdf = np.array([[0, 4, 12, 14, 16], [0, 1, 8, 16, 0]], np.int32)
    table = read_tfc1_table(cdf, _row([5, 4]), OFFSET, precision=4, overflow_width=2)
    # Above: overflow 2 (symbol - 2), below: 2 (-1 - symbol) - 1. In digits of 2 bits: the number
    # of digits, 3 at most a digit (3 means that more follows), then the digits.
    cases = {
        2: (0, 1),
        3: (2, 2),
        4: (4, 3),
        -2: (1, 2),
        -3: (3, 2),
        -4: (5, 3),
        18: (32, 5),
        40: (76, 6),
    }
    for symbol, (overflow, code_digits) in cases.items():
        count = len(f"{overflow:b}") if overflow else 0
        digits = -(-count // 2)
        assert digits // 3 + 1 + digits == code_digits, "the case itself"
        bits = table.bits(_row([symbol]), _row([0]))
        assert bits[0] == pytest.approx(3 + 2 * code_digits), symbol


@pytest.mark.parametrize("reach", [3, 60, 30_000])
def test_the_second_generations_range_coder_agrees(reach: int) -> None:
    random = np.random.default_rng(reach)
    row = random.integers(0, 2, 20_000).astype(np.int32)
    symbols = random.integers(-reach, reach, 20_000).astype(np.int32)
    handle = tfc.create_range_encoder([], TFC2)
    handle = tfc.entropy_encode_index(handle, row, symbols - OFFSET[row])
    real = 8 * len(tfc.entropy_encode_finalize(handle).numpy())
    implied = read_tfc2_table(TFC2, OFFSET).bits(symbols, row).sum()
    # A table of 4 bits: the coder itself loses nothing that shows.
    assert implied - 1 <= real <= implied * 1.0005 + 16


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("reach", [3, 60, 30_000])
def test_the_first_generations_range_coder_agrees(reach: int, width: int) -> None:
    from tensorflow_compression.python.ops import gen_ops

    random = np.random.default_rng(reach)
    cdf = np.array([[0, 4, 12, 14, 16], [0, 1, 8, 16, 0]], np.int32)
    row = random.integers(0, 2, 20_000).astype(np.int32)
    symbols = random.integers(-reach, reach, 20_000).astype(np.int32)
    arguments = (symbols, row, cdf, _row([5, 4]), OFFSET)
    string = gen_ops.unbounded_index_range_encode(
        *map(tf.constant, arguments), precision=4, overflow_width=width, debug_level=1
    )
    table = read_tfc1_table(cdf, _row([5, 4]), OFFSET, precision=4, overflow_width=width)
    implied = table.bits(symbols, row).sum()
    assert implied - 1 <= 8 * len(string.numpy()) <= implied * 1.0005 + 16


def test_a_row_without_escape() -> None:
    table = read_tfc2_table(_row([2, 0, 1, 4]), None)
    np.testing.assert_allclose(table.bits(_row([0, 1]), _row([0])), [2, 2 - math.log2(3)])
    with pytest.raises(CodecGraphError, match="is beyond its row, which has no escape"):
        table.bits(_row([2]), _row([0]))
    with pytest.raises(CodecGraphError, match="is beyond its row, which has no escape"):
        table.bits(_row([-1]), _row([0]))


def test_rows_in_a_matrix_are_padded() -> None:
    table = read_tfc2_table(np.array([[-2, 0, 1, 4, 4], [-2, 0, 1, 2, 4]], np.int32), None)
    assert table.escape.tolist() == [1, 2]


@pytest.mark.parametrize(
    "cdf",
    [[], [-4, 0, 4, 12], [-4, 1, 16], [0, 0, 1], [-4, 0, 8, 4, 16], [-30, 0, 5]],
    ids=["empty", "open", "start", "precision", "falls", "large"],
)
def test_damaged_tables_are_refused(cdf: list[int]) -> None:
    with pytest.raises(CodecGraphError, match="range coder's table"):
        read_tfc2_table(_row(cdf), None)


def test_offsets_must_fit() -> None:
    with pytest.raises(CodecGraphError, match=r"2 rows and offsets of shape \(3,\)"):
        read_tfc2_table(TFC2, _row([1, 2, 3]))


def _gaussian_table(precision: int, scales: Any) -> Any:
    cdf, offsets = [], []
    for sigma in scales:
        half = math.ceil(2.9 * sigma)
        edges = np.arange(-half, half + 2) - 0.5
        phi = [0.5 * (1 + math.erf(e / sigma / math.sqrt(2))) for e in edges]
        pmf = np.append(np.diff(phi), 1 - (phi[-1] - phi[0])).astype(np.float32)
        cdf += [-precision, *tfc.pmf_to_quantized_cdf(pmf, precision=precision).numpy()]
        offsets.append(-half)
    return read_tfc2_table(_row(cdf), _row(offsets))


@pytest.mark.parametrize("precision", [12, 16])
def test_gaussian_rows_have_their_scales(precision: int) -> None:
    table = _gaussian_table(precision, log_spaced_scales(64))
    scales, distance = find_scales(table, [])
    assert scales[0] == pytest.approx(0.11)
    assert scales[63] == pytest.approx(256)
    assert scales[31] * scales[32] == pytest.approx(0.11 * 256)
    assert distance < {12: 0.1, 16: 0.004}[precision]  # the widest rows have 1,480 entries
    assert gaussian_distances(table, scales)[20] < 0.002
    shifted = np.append(scales[1:], 300)
    assert gaussian_distances(table, shifted)[20] > 0.05
    with pytest.raises(CodecGraphError, match="rows of y are not those of zero-mean Gaussians"):
        find_scales(_gaussian_table(precision, shifted), [])


def test_a_candidate_is_taken_only_if_it_fits() -> None:
    others = np.linspace(1.0, 20.0, 16)
    table = _gaussian_table(16, others)
    scales, _ = find_scales(table, [np.linspace(2.0, 30.0, 16), others])
    np.testing.assert_array_equal(scales, others)
