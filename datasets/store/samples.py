"""The samples table: one row an image (docs/store-spec.md, 5)."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from latentset.datasets.errors import StoreCorruptError, StoreFormatError, expect
from latentset.datasets.store.header import Header

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

_TEXTS = [field.name for field in SAMPLES_SCHEMA if pa.types.is_string(field.type)]
_SWELLING = 1000


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
        StoreCorruptError: The object is no Parquet, or a row points outside the arrays.
    """
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        found, rows = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StoreCorruptError(f"{where}: {SAMPLES} cannot be read: {error}") from error
    schema = samples_schema(header)
    for field in schema:
        if field.name not in found.names:
            raise StoreFormatError(f"{where}: {SAMPLES}: column {field.name!r} is missing")
        kind, what = found.field(field.name).type, f"{where}: {SAMPLES}: column {field.name!r}"
        expect(what, field.type, kind, StoreFormatError)
    expect(f"{where}: {SAMPLES}: rows (source.samples)", header.source.samples, rows)
    _refuse_swollen(rows, content, where, "rows")
    try:
        # Texts as dictionaries: one that is stored once and used a million times stays small.
        file = pq.ParquetFile(io.BytesIO(content), read_dictionary=_TEXTS)
        table = file.read(columns=schema.names)
        _refuse_swollen(_text_bytes(table) // _SWELLING, content, where, "texts")
        for field in schema:
            if not field.nullable and table.column(field.name).null_count:
                raise StoreCorruptError(f"{where}: {SAMPLES}: column {field.name!r} holds nulls")
        table = table.cast(schema)
    except (pa.ArrowException, OSError, IndexError) as error:
        raise StoreCorruptError(f"{where}: {SAMPLES} cannot be read: {error}") from error
    check_samples(table, header, where)
    return table


def _refuse_swollen(count: int, content: bytes, where: str, what: str) -> None:
    """Refuse a small object that would need much memory; a real one has some 60 bytes a row."""
    if count > len(content):
        raise StoreCorruptError(
            f"{where}: {SAMPLES}: its {what} would swell {len(content)} bytes beyond measure"
        )


def _text_bytes(table: pa.Table) -> int:
    """Bytes of all texts of a table whose texts are dictionaries."""
    total = 0
    for name in _TEXTS:
        for piece in table.column(name).chunks:
            lengths = pc.binary_length(piece.dictionary).take(piece.indices)
            total += pc.sum(pc.cast(lengths, pa.int64())).as_py() or 0
    return total


def check_samples(table: pa.Table, header: Header, where: str) -> None:
    """Check that every sample with latents is inside the arrays and inside one shard.

    The table has as many rows as the header says.

    Raises:
        StoreCorruptError: A row does not fit the header.
    """
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
    z_outside = (z_start < 0) | (z_start + z_rows > layout.z_shard_rows)
    z_stray = (z_rows == 0) & (column["z_first_row"] != -1)
    limit = np.int64(2**31)
    wrong: tuple[tuple[Any, str], ...] = (
        ((height < 1) | (width < 1) | (height > limit // np.maximum(width, 1)), "latent size"),
        ((column["shard"] < 0) | (column["shard"] >= layout.shards), "no such shard"),
        ((start < 0) | (start % layout.chunk_rows != 0), "first_row"),
        (start + rows > layout.shard_rows, "its rows cross the end of its shard"),
        (np.where(z_rows > 0, z_outside, z_stray), "z_first_row"),
    )
    for mask, what in wrong:
        _refuse(table, ok & mask, what, where)


def _refuse(table: pa.Table, wrong: Any, what: str, where: str) -> None:
    if wrong.any():
        k = int(np.argmax(wrong))
        name = table.column("id")[k].as_py()
        raise StoreCorruptError(f"{where}: {SAMPLES}: row {k} ({name}): {what}")
