"""The samples table: one row an image (docs/store-spec.md, 5)."""

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from latentset.datasets.errors import (
    StoreCorruptError,
    StoreError,
    StoreFormatError,
    expect,
)
from latentset.datasets.limits import (
    MAX_SAMPLE_TEXT_BYTES,
    MAX_SWELLING,
    SMALL_TABLE_BYTES,
)
from latentset.datasets.store.header import Header
from latentset.datasets.store.parquet_pages import page_bytes

SAMPLES = "samples.parquet"
"""Name of the object in a store of Zarr objects."""

SAMPLES_GROUP = "samples"
"""Name of the group of an HDF5 store that holds the table, a dataset a column."""

OK = "ok"
"""Status of a sample that has latents, or pixels."""

SAMPLES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("latent_height", pa.int32(), nullable=False),
        pa.field("latent_width", pa.int32(), nullable=False),
        pa.field("first_row", pa.int64(), nullable=False),
        pa.field("z_first_row", pa.int64(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("rate_bpp", pa.float64(), nullable=True),
        pa.field("source_bytes", pa.int64(), nullable=False),
        pa.field("source_sha256", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)

DECODED_SCHEMA = pa.schema(
    [
        *SAMPLES_SCHEMA,
        pa.field("psnr_db", pa.float64(), nullable=True),
        pa.field("ms_ssim", pa.float64(), nullable=True),
    ]
)
"""Columns of the table of a store of decoded pixels."""


def samples_schema(header: Header) -> pa.Schema:
    """The columns of a store's table, in order."""
    pixels = header.pixels
    return DECODED_SCHEMA if pixels is not None and pixels.latents else SAMPLES_SCHEMA


ROW_GROUP = 131072

_ROW_BYTES = 100
"""Bytes of a row in memory, without its texts."""

_TEXTS = [field.name for field in SAMPLES_SCHEMA if pa.types.is_string(field.type)]


def samples_bytes(table: pa.Table, header: Header) -> bytes:
    """Write the table as the object ``samples.parquet``."""
    sink = io.BytesIO()
    pq.write_table(
        table.cast(samples_schema(header)).combine_chunks(),
        sink,
        compression="zstd",
        row_group_size=ROW_GROUP,
        store_schema=False,
    )
    return sink.getvalue()


def parse_samples(content: bytes, header: Header, where: str) -> pa.Table:
    """Read the object ``samples.parquet`` and check that it fits the header.

    Columns that are not known are dropped; ``where`` names the store in messages.

    Raises:
        StoreFormatError: A column is missing or of another type.
        StoreCorruptError: The object is no Parquet, would take too much memory, or a row points
            outside the arrays.
    """
    where, schema = f"{where}: {SAMPLES}", samples_schema(header)
    try:
        _check_metadata(pq.ParquetFile(pa.BufferReader(content)), header, content, where)
        # Texts as dictionaries: one that is stored once and used a million times stays small.
        file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=_TEXTS)
        table = file.read(columns=schema.names)
        table.validate(full=True)
        texts = {name: _text_sizes(table.column(name)) for name in _TEXTS}
        for name, sizes in texts.items():
            check_text_size(sizes[1], f"{where}: column {name!r}")
        check_memory(table.num_rows, sum(total for total, _ in texts.values()), len(content), where)
        for field in schema:
            if not field.nullable and table.column(field.name).null_count:
                raise StoreCorruptError(f"{where}: column {field.name!r} holds nulls")
        table = table.cast(schema)
    except StoreError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        raise StoreCorruptError(f"{where} cannot be read: {error!s:.400}") from error
    check_samples(table, header, where)
    return table


def _check_metadata(file: pq.ParquetFile, header: Header, content: bytes, where: str) -> None:
    """Compare what a file says of itself with the header, before a page of it is read."""
    metadata, found = file.metadata, file.schema_arrow
    schema = samples_schema(header)
    if len(set(found.names)) < len(found.names):
        raise StoreFormatError(f"{where}: a column is there twice")
    for field in schema:
        if field.name not in found.names:
            raise StoreFormatError(f"{where}: column {field.name!r} is missing")
        kind = found.field(field.name).type
        expect(f"{where}: column {field.name!r}", field.type, kind, StoreFormatError)
    expect(f"{where}: rows (source.samples)", header.source.samples, metadata.num_rows)
    check_memory(metadata.num_rows, page_bytes(content, metadata), len(content), where)


def check_memory(rows: int, text_bytes: int, stored: int, where: str) -> None:
    """Refuse a table of few stored bytes that would take much memory."""
    needed = rows * _ROW_BYTES + text_bytes
    if needed > SMALL_TABLE_BYTES + MAX_SWELLING * stored:
        raise StoreCorruptError(
            f"{where}: expected at most {MAX_SWELLING} times its {stored:,} bytes in memory, "
            f"got {needed:,}"
        )


def check_text_size(size: int, what: str) -> None:
    """Refuse a text of a samples table that is too long."""
    if size > MAX_SAMPLE_TEXT_BYTES:
        raise StoreCorruptError(
            f"{what}: expected texts of at most {MAX_SAMPLE_TEXT_BYTES:,} bytes, got {size:,}"
        )


def _text_sizes(column: pa.ChunkedArray) -> tuple[int, int]:
    """Bytes of all texts of a column of dictionaries, and of its longest text."""
    total, longest = 0, 0
    for piece in column.chunks:
        lengths = pc.cast(pc.binary_length(piece.dictionary), pa.int64())
        total += pc.sum(lengths.take(piece.indices)).as_py() or 0
        longest = max(longest, pc.max(lengths).as_py() or 0)
    return total, longest


def check_samples(table: pa.Table, header: Header, where: str) -> None:
    """Check that every sample with latents is inside the arrays and inside one shard.

    The table has as many rows as the header says; ``where`` names it in messages.

    Raises:
        StoreCorruptError: A row does not fit the header.
    """
    if pc.count_distinct(table.column("id")).as_py() != table.num_rows:
        raise StoreCorruptError(f"{where}: ids are not unique")
    outside = pc.match_substring_regex(table.column("path"), r"(^/)|((^|/)\.\.(/|$))")
    _refuse(table, outside.to_numpy(), "path leads out of the source", where)
    labels = table.column("label").to_numpy()
    _refuse(table, (labels < -1) | (labels >= len(header.source.classes)), "no such label", where)

    ok = pc.equal(table.column("status"), OK).to_numpy()
    column = {
        name: table.column(name).to_numpy().astype(np.int64)
        for name in ("latent_height", "latent_width", "first_row", "z_first_row", "shard")
    }
    layout = header.layout
    height, width = column["latent_height"], column["latent_width"]
    rows = height * width
    z_height, z_width = header.content.z_grid(height, width)
    z_rows = z_height * z_width
    start = column["first_row"] - column["shard"] * layout.shard_rows
    z_start = column["z_first_row"] - column["shard"] * layout.z_shard_rows
    # Compared with a difference: near 2^63 a sum would overflow.
    z_outside = (z_start < 0) | (z_start > layout.z_shard_rows - z_rows)
    z_stray = (z_rows == 0) & (column["z_first_row"] != -1)
    limit = np.int64(2**31)
    wrong: tuple[tuple[Any, str], ...] = (
        ((height < 1) | (width < 1) | (height > limit // np.maximum(width, 1)), "latent size"),
        ((column["shard"] < 0) | (column["shard"] >= layout.shards), "no such shard"),
        ((start < 0) | (start % layout.chunk_rows != 0), "first_row"),
        (start > layout.shard_rows - rows, "its rows cross the end of its shard"),
        (np.where(z_rows > 0, z_outside, z_stray), "z_first_row"),
    )
    for mask, what in wrong:
        _refuse(table, ok & mask, what, where)


def _refuse(table: pa.Table, wrong: Any, what: str, where: str) -> None:
    if wrong.any():
        k = int(np.argmax(wrong))
        name = table.column("id")[k].as_py()
        raise StoreCorruptError(f"{where}: row {k} ({name}): {what}")


def order_splits(names: Iterable[str]) -> list[str]:
    """Names of splits in their usual order: train, val, test, others, none."""
    usual = {"train": 0, "val": 1, "test": 2, "": 4}
    return sorted(names, key=lambda name: (usual.get(name, 3), name))
