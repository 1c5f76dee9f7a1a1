"""How many bytes the pages of a Parquet file become: from their own headers, before one is read.

The sizes in the file's metadata need not be those of its pages, whose memory Arrow takes. Source:
the Parquet format's ``PageHeader``, in Thrift's compact protocol (apache/parquet-format).
"""

from collections.abc import Iterator

import pyarrow.parquet as pq

_UNCOMPRESSED_SIZE, _COMPRESSED_SIZE = 2, 3
_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, 12
_MAX_DEPTH = 8


def page_bytes(content: bytes, metadata: pq.FileMetaData) -> int:
    """Sum the sizes of all pages after decompression; ValueError if a page's header is none."""
    total = 0
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            start, offset = column.data_page_offset, column.dictionary_page_offset
            if offset is not None:
                start = min(start, offset)
            total += sum(_page_sizes(content, start, start + column.total_compressed_size))
    return total


def _page_sizes(content: bytes, at: int, end: int) -> Iterator[int]:
    if at < 0 or end > len(content):
        raise ValueError("a column is beyond the end of the file")
    while at < end:
        fields, at = _read_struct(content, at)
        size, stored = fields.get(_UNCOMPRESSED_SIZE, -1), fields.get(_COMPRESSED_SIZE, -1)
        if size < 0 or not 0 <= stored <= end - at:
            raise ValueError("a page is beyond the end of its column")
        yield size
        at += stored


def _read_struct(content: bytes, at: int, depth: int = 0) -> tuple[dict[int, int], int]:
    """Read a struct's integers by field number, and where it ends; the rest is skipped."""
    if depth > _MAX_DEPTH:
        raise ValueError("a page's header is nested too deep")
    fields: dict[int, int] = {}
    number = 0
    while (head := content[at]) != 0:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _read_integer(content, at)
        value, at = _read_value(content, at, head & 15, depth)
        fields[number] = value
    return fields, at + 1


def _read_value(content: bytes, at: int, kind: int, depth: int) -> tuple[int, int]:
    """Read an integer, or skip another value (0)."""
    if kind in _BOOLEANS:
        return 0, at
    if kind == _BYTE:
        return 0, at + 1
    if kind in _INTEGERS:
        return _read_integer(content, at)
    if kind == _DOUBLE:
        return 0, at + 8
    if kind == _BINARY:
        size, at = _read_varint(content, at)
        return 0, at + size
    if kind == _STRUCT:
        return 0, _read_struct(content, at, depth + 1)[1]
    raise ValueError(f"a page's header has a value of the kind {kind}")


def _read_integer(content: bytes, at: int) -> tuple[int, int]:
    value, at = _read_varint(content, at)
    return value >> 1 ^ -(value & 1), at


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of a page's header has no end")
