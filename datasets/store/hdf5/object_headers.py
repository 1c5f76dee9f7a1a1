"""Which of HDF5's structures a file uses, read from its bytes before HDF5 reads them.

HDF5 has a dozen ways to store a group or an index, and follows what a file says: a circle in one of
the old B-trees ends the process. Our writer needs few of them (docs/store-spec.md, 8.2); all others
are refused here. Source: the HDF5 file format specification 3.0, sections II.A, III, and IV.A.
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from latentset.datasets.errors import StoreCorruptError, StoreFormatError

USER_BLOCK = 512
"""Bytes before the HDF5 part of the file."""

ReadPart = Callable[[int, int], bytes]
"""Read bytes by address, which HDF5 counts from the end of the user block, and number."""

STRUCTURE_ERRORS = (struct.error, LookupError, OverflowError)
"""What the functions below raise besides where a structure is cut off."""

_UNDEFINED = 2**64 - 1
_NIL, _SPACE, _LINK_INFO, _TYPE, _FILL, _LINK, _LAYOUT = 0, 1, 2, 3, 5, 6, 8
_GROUP_INFO, _FILTERS, _ATTRIBUTE, _CONTINUATION, _ATTRIBUTE_INFO = 10, 11, 12, 16, 21

_OF_GROUPS = {_NIL, _LINK_INFO, _LINK, _GROUP_INFO, _ATTRIBUTE, _CONTINUATION, _ATTRIBUTE_INFO}
_OF_DATASETS = {_NIL, _SPACE, _TYPE, _FILL, _LAYOUT, _FILTERS, _CONTINUATION}

_MAX_CONTINUATIONS = 64
_MAX_HEADER_BYTES = 1 << 20
_SHARED = 2
"""Flag of a message that is kept elsewhere."""

_RECORD_BYTES = {1: 24, 5: 11, 8: 17}
"""Bytes of a record in B-trees of large attributes, names of links, and names of attributes."""

_MAX_HEAP_ROWS = 16

_CHUNKED, _SINGLE_CHUNK, _FIXED_ARRAY = 2, 1, 3
_PAGE_BITS = 10


@contextmanager
def read_parts(path: Path) -> Iterator[ReadPart]:
    """Open a file for the functions below; OSError on trouble."""
    with path.open("rb") as file:

        def read(address: int, size: int) -> bytes:
            if address >= 1 << 62:
                raise StoreCorruptError(f"{path}: HDF5's metadata is beyond the end of the file")
            file.seek(USER_BLOCK + address)
            content = file.read(size)
            if len(content) < size:
                raise StoreCorruptError(f"{path}: HDF5's metadata is beyond the end of the file")
            return content

        yield read


def check_root(read: ReadPart, where: str) -> None:
    """Check the superblock and the root group; raises as ``check_group``."""
    superblock = read(0, 44)
    version, offsets, lengths = superblock[8:11]
    base, extension, _, root = struct.unpack_from("<4Q", superblock, 12)
    if (version, offsets, lengths) not in ((2, 8, 8), (3, 8, 8)):
        raise StoreFormatError(f"{where}: expected a file in the format of HDF5 1.10")
    if base != USER_BLOCK or extension != _UNDEFINED:
        raise StoreFormatError(f"{where}: expected no extension of HDF5's superblock")
    check_group(read, root, where)


def check_group(read: ReadPart, address: int, where: str) -> None:
    """Check a group's object header.

    Raises:
        StoreFormatError: It uses a structure that our writer does not.
        StoreCorruptError: It is none.
    """
    for kind, content in _messages(read, address, where, _OF_GROUPS):
        if kind in (_LINK_INFO, _ATTRIBUTE_INFO):
            # With or without an index by order of creation: the last two are heap and tree.
            tracked = bool(content[1] & 1)
            first = 2 + tracked * (8 if kind == _LINK_INFO else 2)
            heap, *trees = struct.unpack_from(f"<{2 + bool(content[1] & 2)}Q", content, first)
            if heap != _UNDEFINED:
                _check_heap(read, heap, where)
                for tree in trees:
                    _check_tree(read, tree, where)


def _check_heap(read: ReadPart, address: int, where: str) -> None:
    """A fractal heap of the form that HDF5 gives those of links and attributes."""
    header = read(address, 142)
    signature, version, identifier, filters, _, managed = struct.unpack_from("<4sBHHBI", header)
    (huge_tree,) = struct.unpack_from("<Q", header, 22)
    width, block, largest, bits, rows = struct.unpack_from("<HQQHH", header, 110)
    (used_rows,) = struct.unpack_from("<H", header, 140)
    form = (signature, version, filters, managed, width, largest, rows)
    if (
        form != (b"FRHP", 0, 0, 4096, 4, 65536, 1)
        or (identifier, block, bits) not in ((7, 512, 32), (8, 1024, 40))
        or used_rows > _MAX_HEAP_ROWS
    ):
        raise StoreFormatError(f"{where}: expected a heap as HDF5 1.10 makes it")
    if huge_tree != _UNDEFINED:
        _check_tree(read, huge_tree, where)


def _check_tree(read: ReadPart, address: int, where: str) -> None:
    """A B-tree of version 2, of one node, has no circles."""
    header = read(address, 34)
    signature, version, kind, node, size, depth, split, merge = struct.unpack_from(
        "<4sBBIHHBB", header
    )
    here, total = struct.unpack_from("<HQ", header, 24)
    form = (signature, version, node, depth, split, merge, size)
    expected = (b"BTHD", 0, 512, 0, 100, 40, _RECORD_BYTES.get(kind))
    if form != expected or here != total or 10 + here * size > node:
        raise StoreFormatError(f"{where}: expected an index of one node as HDF5 1.10 makes it")


def check_dataset(read: ReadPart, address: int, where: str) -> bytes:
    """Check a dataset's object header; return what it says of the index of its chunks.

    Raises as ``check_group``.
    """
    found = _messages(read, address, where, _OF_DATASETS)
    layouts = [content for kind, content in found if kind == _LAYOUT]
    if len(layouts) == 1:
        version, storage, _, dimensions, width = layouts[0][:5]
        if (version, storage) == (4, _CHUNKED) and 2 <= dimensions <= 3 and 1 <= width <= 8:
            return layouts[0][5 + dimensions * width :]
    raise StoreFormatError(f"{where}: expected chunks inside the file, indexed as by HDF5 1.10")


def check_index(read: ReadPart, index: bytes, chunks: int, where: str) -> None:
    """Check the header of the index of a dataset's chunks; raises as ``check_group``."""
    if index[0] == _SINGLE_CHUNK and chunks == 1:
        return
    if index[:2] == bytes([_FIXED_ARRAY, _PAGE_BITS]):
        header = read(int.from_bytes(index[2:10], "little"), 16)
        signature, version, client, entry, bits, count = struct.unpack("<4s4BQ", header)
        expected = (b"FAHD", 0, 1, _PAGE_BITS, chunks)
        if (signature, version, client, bits, count) == expected and 13 <= entry <= 20:
            return
    raise StoreFormatError(f"{where}: expected an index of {chunks} chunks as by HDF5 1.10")


def _messages(
    read: ReadPart, address: int, where: str, known: set[int]
) -> Iterator[tuple[int, bytes]]:
    """The messages of an object header of version 2, by type; also those in its continuations."""
    start = read(address, 6)
    flags = start[5]
    if start[:5] != b"OHDR\x02":
        raise StoreFormatError(f"{where}: expected an object as HDF5 1.10 has it")
    skipped = (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    first = address + 6 + skipped
    blocks = [(first + width, int.from_bytes(read(first, width), "little"))]
    prefix = 6 if flags & 4 else 4
    for position, size in blocks:
        if size > _MAX_HEADER_BYTES or len(blocks) > _MAX_CONTINUATIONS:
            raise StoreCorruptError(f"{where}: its object header has no end")
        block, at = read(position, size), 0
        while at + prefix <= size:
            kind, length, flag = struct.unpack_from("<BHB", block, at)
            content = block[at + prefix : at + prefix + length]
            at += prefix + length
            if kind not in known or flag & _SHARED or at > size:
                raise StoreFormatError(
                    f"{where}: expected no links, types or attributes but those of the writer "
                    f"(HDF5's message {kind})"
                )
            if kind == _CONTINUATION:
                there, more = struct.unpack_from("<QQ", content)
                if read(there, 4) != b"OCHK" or more < 8:
                    raise StoreCorruptError(f"{where}: its object header has no end")
                blocks.append((there + 4, more - 8))
            yield kind, content
