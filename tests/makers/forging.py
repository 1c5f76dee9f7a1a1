"""Stores that are altered at random, with every digest made to agree, as a forger would."""

import copy
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from latentset.datasets.store.hdf5.metadata import write_attribute

Draw = Callable[[st.SearchStrategy[Any]], Any]
Objects = dict[str, bytes]

NUMBERS = st.sampled_from(
    (
        *(0, -1, 1, 2, 3, 15, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1),
        *(2**63, -(2**63), 2**64, 10**30, 10**400, 0.0, -0.0, 0.5, 1e-300, 1e300, 1e6),
        *(float("nan"), float("inf"), -float("inf")),
    )
)
TEXTS = st.sampled_from(
    (
        *("", "x", "none", "short:64", "exact:1x1", "short:99999", "1.0", "1.1", "1.2", "0.1", "9"),
        *("y_hat", "pixels", "scale_index", "ok", "train", "a/b", "../x", "/etc/passwd", "."),
        *("[/x]", "[bold]", "a\x1b[2J", "\x9b", "\u202e", "\ud800", "\x00", "é" * 700, "x" * 10**6),
        *("0" * 64, "f" * 64, "zarr.json", "manifest.json", "original", "decoded", "tfc1"),
    )
)
VALUES: st.SearchStrategy[Any] = st.one_of(
    NUMBERS, TEXTS, st.sampled_from((None, True, False, [], {}, [[]], [None], {"": None}))
)


def sign(objects: Objects) -> None:
    """Make the manifest agree with the objects, and with itself."""
    try:
        manifest = json.loads(objects["manifest.json"])
        for item in manifest["objects"]:
            content = objects.get(item["path"])
            if content is not None:
                item["bytes"] = len(content)
                item["sha256"] = hashlib.sha256(content).hexdigest()
    except (ValueError, KeyError, TypeError, AttributeError):
        return
    objects["manifest.json"] = sign_manifest(manifest)


def sign_manifest(manifest: dict[str, Any]) -> bytes:
    """A manifest with its own digest."""
    content = json.dumps({**manifest, "sha256": "0" * 64}).encode()
    digest = hashlib.sha256(content).hexdigest()
    return content.replace(b"0" * 64, digest.encode(), 1)


def forge_zarr(draw: Draw, sound: Objects) -> Objects:
    """Alter objects of a store; its digests agree."""
    objects = dict(sound)
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(("json", "manifest", "table", "bytes", "index", "chunk")))
        shards = sorted(path for path in objects if "/c/" in path)
        match kind:
            case "json":
                path = draw(st.sampled_from(sorted(p for p in objects if p.endswith("zarr.json"))))
                objects[path] = _alter_json(draw, objects[path])
            case "manifest":
                sign(objects)
                altered = _alter_json(draw, objects["manifest.json"])
                objects["manifest.json"] = altered
                if draw(st.booleans()):
                    sign(objects)
                else:  # its own digest alone
                    _sign_itself(objects)
                return objects
            case "table":
                objects["samples.parquet"] = _alter_table(draw, objects["samples.parquet"])
            case "bytes":
                path = draw(st.sampled_from(sorted(objects)))
                objects[path] = _alter_bytes(draw, objects[path])
            case "index":
                path = draw(st.sampled_from(shards))
                objects[path] = _alter_index(draw, objects[path], sound)
            case "chunk":
                path = draw(st.sampled_from(shards))
                objects[path] = _alter_chunk(draw, objects[path])
    sign(objects)
    return objects


def _sign_itself(objects: Objects) -> None:
    try:
        objects["manifest.json"] = sign_manifest(json.loads(objects["manifest.json"]))
    except (ValueError, TypeError):
        return


def _alter_json(draw: Draw, content: bytes) -> bytes:
    """Put another value anywhere in a JSON document, remove one, repeat one, or add one."""
    try:
        document = json.loads(content)
    except ValueError:
        return content
    found: Any = document
    parent: Any = None
    key: Any = None
    while isinstance(found, dict | list) and found and (parent is None or draw(st.booleans())):
        keys = sorted(found) if isinstance(found, dict) else range(len(found))
        parent, key = found, draw(st.sampled_from(keys))
        found = found[key]
        if key in ("attributes", "latentset") and isinstance(found, dict) and found:
            parent, key = found, draw(st.sampled_from(sorted(found)))
            found = parent[key]
    if parent is None:
        return json.dumps(draw(VALUES)).encode()
    match draw(st.sampled_from(("value", "value", "value", "remove", "add", "repeat"))):
        case "value":
            parent[key] = draw(VALUES)
        case "remove":
            del parent[key]
        case "add" if isinstance(parent, dict):
            parent[draw(TEXTS)] = draw(VALUES)
        case "repeat" if isinstance(parent, list):
            parent += [copy.deepcopy(found)] * draw(st.sampled_from((1, 2, 300, 100_000)))
    return json.dumps(document).encode()


def _alter_table(draw: Draw, content: bytes) -> bytes:
    """Alter values of a column, its type, or the columns that there are."""
    try:
        table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError):
        return content
    if not table.num_columns:
        return content
    column = draw(st.integers(0, table.num_columns - 1))
    field, values = table.schema.field(column), table.column(column).to_pylist()
    match draw(
        st.sampled_from(("value", "value", "value", "all", "type", "drop", "twice", "rows"))
    ):
        case "value" | "all" as which:
            value = draw(VALUES)
            one = [draw(st.integers(0, len(values) - 1))] if values else []
            for k in range(len(values)) if which == "all" else one:
                values[k] = value
            array = _array(values, field.type)
            if array is not None:
                table = table.set_column(column, field.with_nullable(True), array)
        case "type":
            kind = draw(st.sampled_from((pa.int8(), pa.float32(), pa.large_string(), pa.binary())))
            array = _array(values, kind)
            if array is not None:
                table = table.set_column(column, field.name, array)
        case "drop":
            table = table.remove_column(column)
        case "twice":
            table = table.append_column(field, table.column(column))
        case _:
            rows = draw(st.lists(st.integers(0, len(table) - 1), max_size=40)) if len(table) else []
            table = table.take(pa.array(rows, pa.int64()))
    sink = io.BytesIO()
    pq.write_table(
        table, sink, store_schema=False, compression=draw(st.sampled_from(("zstd", "none")))
    )
    return sink.getvalue()


def _array(values: list[Any], kind: pa.DataType) -> pa.Array | None:
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None


def _alter_bytes(draw: Draw, content: bytes) -> bytes:
    """Overwrite a few bytes, cut off, or append."""
    at: int = draw(st.integers(0, len(content)))
    new: bytes
    match draw(st.sampled_from(("few", "few", "number", "cut", "append", "zeros"))):
        case "few":
            new = draw(st.binary(min_size=1, max_size=8))
        case "number":
            new = draw(st.integers(0, 2**64 - 1)).to_bytes(8, "little")
        case "cut":
            return bytes(content[:at])
        case "append":
            return content + bytes(draw(st.binary(max_size=64)))
        case _:
            return bytes(len(content))
    return content[:at] + new + content[at + len(new) :]


def _crc(content: bytes) -> bytes:
    return int(google_crc32c.value(content)).to_bytes(4, "little")


def _alter_index(draw: Draw, content: bytes, sound: Objects) -> bytes:
    """Alter an entry of the index at the end of a shard of one chunk or more; its checksum fits."""
    chunks = draw(st.integers(1, 4))
    size = 16 * chunks
    if len(content) < size + 4:
        return content
    index = np.frombuffer(content[-size - 4 : -4], "<u8").copy()
    index[draw(st.integers(0, len(index) - 1))] = (
        draw(st.integers(0, 2**64 - 1))
        if draw(st.booleans())
        else draw(st.integers(0, len(content)))
    )
    body = index.tobytes()
    return content[: -size - 4] + body + _crc(body)


def _alter_chunk(draw: Draw, content: bytes) -> bytes:
    """Alter the first chunk of a shard, whose size is in the first entry of its index."""
    for chunks in (1, 2, 4, 8):
        if len(content) <= 140:
            return content
        index = np.frombuffer(content[-16 * chunks - 4 : -4], "<u8").tolist()
        if index[0] == 0 and 20 < index[1] < len(content):
            end: int = index[1] - 4
            at: int = draw(st.integers(0, 24))
            new: bytes = draw(st.binary(min_size=1, max_size=4))
            body = content[:at] + new + content[at + len(new) : end]
            return body + _crc(body) + content[end + 4 :]
    return content


def forge_hdf5(draw: Draw, sound: bytes) -> bytes:
    """Alter an HDF5 store: bytes of HDF5's own structures, whose checksums fit, or its texts."""
    content = bytearray(sound)
    if draw(st.integers(0, 3)) == 0:
        return seal(_alter_texts(draw, sound))
    for _ in range(draw(st.integers(1, 3))):
        starts = _structures(bytes(content))
        first, size = draw(st.sampled_from(starts))
        if draw(st.integers(0, 5)) == 0:
            at = draw(st.integers(512, len(content) - 1))
        else:
            at = first + draw(st.integers(4, max(4, size - 1)))
        new = draw(
            st.one_of(
                st.binary(min_size=1, max_size=4),
                st.sampled_from([start - 512 for start, _ in starts]).map(
                    lambda address: address.to_bytes(8, "little")
                ),
                st.sampled_from((b"\xff" * 8, b"\0" * 8, b"\xff", b"\x7f" * 4)),
            )
        )
        content[at : at + len(new)] = new
        if first + size + 4 <= len(content):
            checksum = lookup3(bytes(content[first : first + size]))
            content[first + size : first + size + 4] = checksum.to_bytes(4, "little")
    if draw(st.integers(0, 9)) == 0:
        content = content[: draw(st.integers(520, len(content)))]
    return seal(bytes(content))


def _alter_texts(draw: Draw, sound: bytes) -> bytes:
    """Alter the header or the manifest; the manifest's digests fit."""
    file = io.BytesIO(sound)
    with h5py.File(file, "r+", libver=("v110", "v110")) as opened:
        header = bytes(opened.attrs["latentset"])
        manifest = json.loads(bytes(opened.attrs["manifest"]))
        if draw(st.booleans()):
            header = _alter_json(draw, header)
            for item in manifest["objects"]:
                if item["path"] == "latentset":
                    item["bytes"], item["sha256"] = len(header), hashlib.sha256(header).hexdigest()
        else:
            altered = json.loads(_alter_json(draw, json.dumps(manifest).encode()))
            manifest = altered if isinstance(altered, dict) else manifest
        for name, text in (("latentset", header), ("manifest", sign_manifest(manifest))):
            del opened.attrs[name]
            write_attribute(opened, name, text)
    return file.getvalue()


def seal(content: bytes) -> bytes:
    """Write the user block of a file anew."""
    line = {
        "format": "latentset-hdf5",
        "format_version": json.loads(content[:512].split(b"\n")[0])["format_version"],
        "bytes": len(content),
        "sha256": hashlib.sha256(content[512:]).hexdigest(),
    }
    return (json.dumps(line) + "\n").encode().ljust(512, b"\0") + content[512:]


def _structures(content: bytes) -> list[tuple[int, int]]:
    """Where structures of HDF5 begin, and their sizes without the checksum at their end."""
    found = [(512, 44)]
    for signature, size in ((b"FAHD", 24), (b"BTHD", 34), (b"FRHP", 142)):
        found += [(at, size) for at in _positions(content, signature)]
    for at in _positions(content, b"OHDR"):
        flags = content[at + 5]
        first = at + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        size = int.from_bytes(content[first : first + width], "little")
        if size < 1 << 16:
            found.append((at, first + width + size - at))
    for at in _positions(content, b"BTLF"):
        found.append((at, 6 + 11 * 16))
    return found


def _positions(content: bytes, signature: bytes) -> list[int]:
    found, at = [], content.find(signature)
    while at >= 0:
        found.append(at)
        at = content.find(signature, at + 4)
    return found


def lookup3(content: bytes) -> int:
    """The checksum of HDF5's metadata: Bob Jenkins's lookup3, hashlittle with 0."""
    mask = 0xFFFFFFFF

    def rotate(x: int, k: int) -> int:
        return ((x << k) | (x >> (32 - k))) & mask

    a = b = c = (0xDEADBEEF + len(content)) & mask
    at = 0
    while len(content) - at > 12:
        x, y, z = (int.from_bytes(content[at + k : at + k + 4], "little") for k in (0, 4, 8))
        a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
        a = (a - c & mask) ^ rotate(c, 4)
        c = (c + b) & mask
        b = (b - a & mask) ^ rotate(a, 6)
        a = (a + c) & mask
        c = (c - b & mask) ^ rotate(b, 8)
        b = (b + a) & mask
        a = (a - c & mask) ^ rotate(c, 16)
        c = (c + b) & mask
        b = (b - a & mask) ^ rotate(a, 19)
        a = (a + c) & mask
        c = (c - b & mask) ^ rotate(b, 4)
        b = (b + a) & mask
        at += 12
    rest = content[at:].ljust(12, b"\0")
    if len(content) == at:
        return c
    x, y, z = (int.from_bytes(rest[k : k + 4], "little") for k in (0, 4, 8))
    a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
    for first, second, turn in (
        (2, 1, 14),
        (0, 2, 11),
        (1, 0, 25),
        (2, 1, 16),
        (0, 2, 4),
        (1, 0, 14),
        (2, 1, 24),
    ):
        values = [a, b, c]
        values[first] = (values[first] ^ values[second]) - rotate(values[second], turn) & mask
        a, b, c = values
    return c


def read_objects(store: Path) -> Objects:
    """Read the objects of a store in a folder."""
    files = (path for path in store.rglob("*") if path.is_file())
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def write_objects_to(folder: Path, objects: Objects) -> None:
    """Write the objects of a store into a folder."""
    for path, content in objects.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
