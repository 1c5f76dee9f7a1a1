"""The range coder's tables of a codec: the bits of symbols, and the scales behind the rows.

Sources:
    tensorflow/compression 2.14, ``cc/kernels/range_coder_kernels.cc`` (``OverflowEncode``,
    ``ScanCDF``) and ``cc/kernels/unbounded_index_range_coding_kernels.cc``
    (``RangeEncodeImpl``): how a symbol beyond its row is coded.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import CodecGraphError

SCALE_MIN = 0.11
SCALE_MAX = 256.0
SCALE_COUNT = 64
"""Of the scale table in tensorflow/compression, ``models/bmshj2018.py``."""

_FIT_LIMIT = 0.02
_FIT_LIMIT_ENTRIES = 0.25
"""Largest total variation distance of a row to its Gaussian: 0.02, and a quarter of the probability
that gives each of its entries one count. The Gaussian of a neighbouring scale is at 0.06. Measured
with 12 bits: 0.003 for sigma 15 (90 entries), 0.08 for sigma 256 (1,480 entries)."""

_COST_UNITS = 1 << 24
"""Units of a bit in which costs are counted; sums of up to 2 ** 29 bits are exact."""

_MAX_ROWS = 4096
_MAX_ENTRIES = 1 << 22
"""Of all rows of a table, padded to one length; the published ones have 95,000."""

_WINDOW = 1024
"""Symbols of a magnitude below this are looked up, larger ones computed."""


@dataclass(frozen=True)
class CodeTable:
    """Probability rows of one range-encode op."""

    form: Literal["tfc1", "tfc2"]
    """How symbols beyond a row are coded."""
    cost_bits: NDArray[np.float64]
    """Of each entry of a row, (rows, entries); the last one that counts is the escape."""
    escape: NDArray[np.int64]
    """Its location in each row, (rows,); -1: none."""
    offset: NDArray[np.int64]
    """Smallest symbol of each row, (rows,)."""
    precision: NDArray[np.int64]
    """Bits of a probability in each row, (rows,)."""
    overflow_width: int = 0
    """tfc1: bits of a digit of the overflow code."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.escape)

    def bits(self, symbols: NDArray[np.int32], row: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return the bits of each symbol; CodecGraphError where its row cannot code it."""
        if row.size and not 0 <= row.min() <= row.max() < self.rows:
            found = f"{row.min()} to {row.max()}"
            raise CodecGraphError(f"expected rows below {self.rows} of the table, got {found}")
        location = symbols + np.int32(_WINDOW)
        bits: NDArray[np.float64]
        if (location.view(np.uint32) < 2 * _WINDOW).all():
            bits = self._window.take(location + row * np.int32(2 * _WINDOW))
        else:
            bits = self._compute_bits(symbols, np.broadcast_to(row, symbols.shape))
        if not np.isfinite(bits).all():
            raise CodecGraphError(
                "a symbol has no probability in its row, or is beyond its row, which has no escape"
            )
        return bits

    @cached_property
    def _window(self) -> NDArray[np.float64]:
        """Bits of the symbols -_WINDOW to _WINDOW - 1 in every row: ten times as fast a lookup."""
        symbols = np.arange(-_WINDOW, _WINDOW, dtype=np.int32)
        rows = np.arange(self.rows, dtype=np.int32)[:, np.newaxis]
        return self._compute_bits(*np.broadcast_arrays(symbols, rows)).ravel()

    def _compute_bits(
        self, symbols: NDArray[np.int32], row: NDArray[np.int32]
    ) -> NDArray[np.float64]:
        value = symbols.astype(np.int64) - self.offset[row]
        escape = self.escape[row]
        beyond = (value < 0) | (value >= np.where(escape < 0, self.cost_bits.shape[1], escape))
        bits: NDArray[np.float64] = self.cost_bits[row, np.where(beyond, escape, value)]
        bits[beyond] += self._overflow_bits(value[beyond], escape[beyond])
        bits[beyond & (escape < 0)] = np.inf
        return bits

    def _overflow_bits(
        self, value: NDArray[np.int64], escape: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        if self.form == "tfc2":
            # Elias gamma code of the distance, from 1, and a bit for the side.
            distance = np.where(value < 0, -value, value - escape + 1)
            return 2.0 * _bit_length(distance)
        # Both sides interleaved; a unary-like count of digits, then the digits.
        width = self.overflow_width
        overflow = np.where(value < 0, -2 * value - 1, 2 * (value - escape))
        digits = -(-_bit_length(overflow) // width)
        count = digits // ((1 << width) - 1) + 1
        return (width * (count + digits)).astype(np.float64)


def read_tfc2_table(cdf: NDArray[np.int32], cdf_offset: NDArray[np.int32] | None) -> CodeTable:
    """Read a table of tensorflow-compression 2; CodecGraphError if it is damaged.

    Rows are ``[-precision, 0, ..., 2 ** precision]``, one after the other in one vector, or padded
    with their last entry in a matrix. A positive precision means that the row has no escape.
    """
    _check_entries(np.size(cdf))
    flat = np.asarray(cdf).ravel().tolist()
    rows: list[list[int]] = []
    precisions: list[int] = []
    start = 0
    while start < len(flat):
        precision = flat[start]
        top = 1 << min(abs(precision), 30)
        end = start + 1
        while end < len(flat) and flat[end] != top:
            end += 1
        row = flat[start + 1 : end + 1]
        if not 1 <= abs(precision) <= 16 or end == len(flat) or row[0] != 0:
            raise CodecGraphError(f"the range coder's table is damaged at entry {start}")
        start = end + 1
        while start < len(flat) and flat[start] == top:
            start += 1
        rows.append(row)
        precisions.append(precision)
    offset = np.zeros(len(rows), np.int64) if cdf_offset is None else np.asarray(cdf_offset)
    return _make_table("tfc2", rows, precisions, offset)


def read_tfc1_table(
    cdf: NDArray[np.int32],
    cdf_size: NDArray[np.int32],
    offset: NDArray[np.int32],
    precision: int,
    overflow_width: int,
) -> CodeTable:
    """Read a table of tensorflow-compression 1; CodecGraphError if it is damaged.

    Rows are ``[0, ..., 2 ** precision]``, padded to (rows, length).
    """
    _check_entries(np.size(cdf))
    known = np.ndim(cdf) == 2 and 1 <= overflow_width <= 16 and 1 <= precision <= 16
    known = known and np.shape(cdf_size) == np.shape(cdf)[:1]
    rows = [r[:size].tolist() for r, size in zip(cdf, cdf_size, strict=True)] if known else []
    if not known or any(len(r) < 2 or r[0] != 0 or r[-1] != 1 << precision for r in rows):
        raise CodecGraphError("the range coder's table is damaged")
    return _make_table("tfc1", rows, [-precision] * len(rows), np.asarray(offset), overflow_width)


def _make_table(
    form: Literal["tfc1", "tfc2"],
    rows: list[list[int]],
    precisions: list[int],
    offset: NDArray[Any],
    overflow_width: int = 0,
) -> CodeTable:
    """A row of negative precision has an escape."""
    if not rows or offset.shape != (len(rows),):
        found = f"{len(rows)} rows and offsets of shape {offset.shape}"
        raise CodecGraphError(f"the range coder's table has {found}")
    if len(rows) > _MAX_ROWS:
        raise CodecGraphError(
            f"the range coder's table has {len(rows):,} rows, expected {_MAX_ROWS:,} at most"
        )
    _check_entries(len(rows) * max(map(len, rows)))
    cost = np.full((len(rows), max(len(row) for row in rows) - 1), np.inf)
    for i, (row, precision) in enumerate(zip(rows, precisions, strict=True)):
        counts = np.diff(row)
        if (counts < 0).any():
            raise CodecGraphError(f"row {i} of the range coder's table falls")
        with np.errstate(divide="ignore"):
            # In units that add up exactly: the last digits of log2 are the CPU's.
            units = np.round((abs(precision) - np.log2(counts)) * _COST_UNITS)
        cost[i, : len(counts)] = units / _COST_UNITS
    escapes = [len(r) - 2 if p < 0 else -1 for r, p in zip(rows, precisions, strict=True)]
    escape, bits = np.array(escapes, np.int64), np.abs(np.array(precisions, np.int64))
    return CodeTable(form, cost, escape, offset.astype(np.int64), bits, overflow_width)


def _check_entries(count: int) -> None:
    if count > _MAX_ENTRIES:
        raise CodecGraphError(
            f"the range coder's table has {count:,} entries, expected {_MAX_ENTRIES:,} at most"
        )


def _bit_length(values: NDArray[np.int64]) -> NDArray[np.int64]:
    # frexp(v) is (m, e) with v = m * 2 ** e, 1/2 <= m < 1: e is the number of bits, 0 for 0.
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)


def log_spaced_scales(count: int) -> NDArray[np.float64]:
    """Return bmshj2018's scale table: ``exp(ln 0.11 + i (ln 256 - ln 0.11) / (count - 1))``."""
    low, high = math.log(SCALE_MIN), math.log(SCALE_MAX)
    # Twelve digits: the last ones of exp are the CPU's, and all workers must have the same.
    return np.array(
        [float(f"{math.exp(low + i * (high - low) / (count - 1)):.12g}") for i in range(count)]
    )


def gaussian_distances(table: CodeTable, scales: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each row's total variation distance to the quantised Gaussian of its scale."""
    distances = np.zeros(len(scales))
    for row, sigma in enumerate(scales):
        cost, escape, offset = table.cost_bits[row], int(table.escape[row]), table.offset[row]
        entries = int(np.isfinite(cost).sum())
        edges = offset + np.arange((escape if escape >= 0 else entries) + 1) - 0.5
        cumulative = [0.5 * math.erfc(-edge / (sigma * math.sqrt(2))) for edge in edges]
        expected = np.diff(cumulative)
        if escape >= 0:
            expected = np.append(expected, 1 - expected.sum())
        distances[row] = 0.5 * np.abs(np.exp2(-cost[:entries]) - expected).sum()
    return distances


def find_scales(
    table: CodeTable, candidates: list[NDArray[np.float64]]
) -> tuple[NDArray[np.float64], float]:
    """Find the scale table, of the candidates and bmshj2018's, whose Gaussians y's rows are.

    Also returns the largest total variation distance of a row to its Gaussian.
    """
    rows, entries = table.rows, np.isfinite(table.cost_bits).sum(axis=1)
    limits = _FIT_LIMIT + _FIT_LIMIT_ENTRIES * entries * np.exp2(-table.precision)
    for scales in [*candidates, log_spaced_scales(rows)]:
        if len(scales) != rows:
            continue
        distances = gaussian_distances(table, scales)
        if (distances <= limits).all():
            return scales, float(distances.max())
    misfit = int(np.argmax(distances - limits))
    raise CodecGraphError(
        f"the {rows} probability rows of y are not those of zero-mean Gaussians with scales "
        f"from {SCALE_MIN} to {SCALE_MAX:g}, spaced evenly in their logarithm, so sigma_hat is "
        f"unknown (row {misfit} is {distances[misfit]:.3f} away, {limits[misfit]:.3f} at most)"
    )
