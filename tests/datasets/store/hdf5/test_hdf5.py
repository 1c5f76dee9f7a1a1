"""The HDF5 file: its bytes, how it is put together, what is refused (docs/store-spec.md, 8)."""

import hashlib
import json
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from latentset.datasets.errors import StoreError
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.hdf5.filters import decode_chunk, encode_chunk
from latentset.datasets.store.hdf5.writer import StoredChunks, encode_shard, write_hdf5
from tests.makers.synthetic import write_synthetic_store


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """8 samples of 64x64 pixels in 7 shards, one failed."""
    path = tmp_path_factory.mktemp("source") / "store.zarr"
    return open_store(write_synthetic_store(path, samples=8, failed=(3,), shard_bytes=1 << 9))


def shards(store: Store) -> Iterator[StoredChunks]:
    for index in range(store.header.layout.shards):
        yield encode_shard(store.header, store.read_shard(index))


def write(store: Store, path: Path, **changes: Any) -> Path:
    assert store.manifest is not None
    facts = {
        "header": store.header,
        "shards": shards(store),
        "fingerprint": store.fingerprint,
        "samples": store.samples,
        "summaries": store.manifest.shards,
    }
    write_hdf5(path, **(facts | changes))
    return path


@pytest.fixture
def file(source: Store, tmp_path: Path) -> Path:
    return write(source, tmp_path / "store.h5")


def naive_fletcher32(content: bytes) -> int:
    """Word by word, as HDF5's own code has it."""
    sum1 = sum2 = 0
    padded = content + b"\0" * (len(content) % 2)
    for k in range(0, len(padded), 2):
        sum1 += padded[k] << 8 | padded[k + 1]
        sum1 = (sum1 & 0xFFFF) + (sum1 >> 16)
        sum2 += sum1
        sum2 = (sum2 & 0xFFFF) + (sum2 >> 16)
    return sum2 << 16 | sum1


@pytest.mark.parametrize("count", [*range(1, 40), 70000, 300001])
@pytest.mark.parametrize("low", [0, 255])
def test_the_checksum_is_that_of_hdf5(count: int, low: int) -> None:
    values = np.random.default_rng(count).integers(low, 256, count, np.uint8)
    stored = encode_chunk(values)
    assert zlib.decompress(stored[:-4]) == values.tobytes()
    assert int.from_bytes(stored[-4:], "little") == naive_fletcher32(stored[:-4])


@pytest.mark.parametrize("count", [1, 7, 4096])
def test_hdf5_reads_our_chunks_and_we_read_its(count: int, tmp_path: Path) -> None:
    values = np.random.default_rng(count).integers(-5, 6, (3, count)).astype("<i2")
    with h5py.File(tmp_path / "f.h5", "w", libver=("v110", "v110")) as opened:
        options = {"chunks": (3, count), "compression": "gzip", "fletcher32": True}
        ours = opened.create_dataset("ours", (3, count), "<i2", **options)
        ours.id.write_direct_chunk((0, 0), encode_chunk(values))
        assert np.array_equal(ours[...], values)
        theirs = opened.create_dataset("theirs", data=values, **options)
        theirs.flush()
        stored = theirs.id.read_direct_chunk((0, 0))[1]
    assert decode_chunk(stored, values.nbytes) == values.tobytes()


def test_each_byte_of_a_stored_chunk_counts() -> None:
    stored = encode_chunk(np.arange(24, dtype="<i2"))
    for k in range(len(stored)):
        altered = bytearray(stored)
        altered[k] ^= 1
        with pytest.raises(ValueError, match="the stored fletcher32 differs"):
            decode_chunk(bytes(altered), 48)
    with pytest.raises(ValueError, match="expected 50 bytes after decompression"):
        decode_chunk(stored, 50)


def test_a_chunk_that_swells_is_refused_before_it_does() -> None:
    packed = zlib.compress(b"\0" * (1 << 28))
    stored = packed + naive_fletcher32(packed).to_bytes(4, "little")
    tracemalloc.start()
    with pytest.raises(ValueError, match="expected 64 bytes after decompression"):
        decode_chunk(stored, 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 23


def test_same_rows_same_bytes(source: Store, tmp_path: Path) -> None:
    first, second = (write(source, tmp_path / name) for name in ("a.h5", "b.h5"))
    assert first.read_bytes() == second.read_bytes()
    with h5py.File(first) as opened:
        for name in ("/", "y_hat", "samples", "samples/id"):
            # A time of modification would make every file differ.
            assert h5py.h5g.get_objinfo(opened.id, name.encode()).mtime == 0


def test_the_first_512_bytes(file: Path) -> None:
    content = file.read_bytes()
    line, padding = content[:512].split(b"\n")
    assert json.loads(line) == {
        "format": "latentset-hdf5",
        "format_version": "1.0",
        "bytes": len(content),
        "sha256": hashlib.sha256(content[512:]).hexdigest(),
    }
    assert padding == b"\0" * (512 - len(line) - 1)
    assert content[512:520] == b"\x89HDF\r\n\x1a\n"
    assert content[520] in (2, 3)  # versions of the superblock that have a checksum


def test_the_manifest_lists_what_is_stored(file: Path, source: Store) -> None:
    with h5py.File(file) as opened:
        manifest = json.loads(opened.attrs["manifest"])
        listed = {item["path"]: item for item in manifest["objects"]}
        assert list(listed) == sorted(
            ["latentset", "y_hat", "scale_index", "z_hat"]
            + [f"samples/{name}" for name in source.samples.column_names]
        )
        for path, item in listed.items():
            if path == "latentset":
                content = bytes(opened.attrs["latentset"])
            else:
                identifier = opened[path].id
                chunks = [identifier.get_chunk_info(k) for k in range(identifier.get_num_chunks())]
                content = b"".join(
                    identifier.read_direct_chunk(info.chunk_offset)[1] for info in chunks
                )
            assert item["bytes"] == len(content)
            assert item["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_header_beyond_64_kib(source: Store, tmp_path: Path) -> None:
    classes = ("even", "odd", *(f"class number {k}, with a long name" for k in range(5000)))
    header = source.header.model_copy(
        update={"source": source.header.source.model_copy(update={"classes": classes})}
    )
    assert len(header.model_dump_json()) > 1 << 17
    opened = open_store(write(source, tmp_path / "long.h5", header=header))
    assert opened.header.source.classes == classes


def test_texts_of_any_language(source: Store, tmp_path: Path) -> None:
    samples = source.samples.set_column(
        source.samples.column_names.index("reason"),
        source.samples.schema.field("reason"),
        [["", "naïve", "图像", "a" * 2000, " b ", "", "🙂", "z"]],
    )
    opened = open_store(write(source, tmp_path / "texts.h5", samples=samples))
    assert opened.samples.equals(samples)


def test_a_nul_in_a_text_is_refused(source: Store, tmp_path: Path) -> None:
    column = source.samples.column_names.index("reason")
    samples = source.samples.set_column(
        column, source.samples.schema.field("reason"), [["a\0"] * 8]
    )
    with pytest.raises(StoreError, match="'reason': texts must not hold a NUL"):
        write(source, tmp_path / "nul.h5", samples=samples)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [6, 8])
def test_a_wrong_number_of_shards_leaves_nothing(count: int, source: Store, tmp_path: Path) -> None:
    given = [*shards(source), *shards(source)][:count]
    with pytest.raises(StoreError, match=f"shards .*: expected 7, got {count}"):
        write(source, tmp_path / "store.h5", shards=given)
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_stays_until_the_new_is_whole(file: Path, source: Store) -> None:
    before = file.read_bytes()

    def failing() -> Iterator[StoredChunks]:
        yield next(shards(source))
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match=r"cannot write .*store\.h5.*No space left.*again"):
        write(source, file, shards=failing())
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["store.h5"]


def test_a_shard_that_lacks_a_chunk_is_refused(source: Store, tmp_path: Path) -> None:
    given = [{name: list(chunks) for name, chunks in shard.items()} for shard in shards(source)]
    given[2]["y_hat"].pop()
    with pytest.raises(StoreError, match=r"shard 2: y_hat: chunks: expected \d+, got \d+"):
        write(source, tmp_path / "store.h5", shards=given)
    assert list(tmp_path.iterdir()) == []


def test_rows_of_another_shape_are_refused(source: Store) -> None:
    rows = source.read_shard(1)
    with pytest.raises(StoreError, match=r"y_hat: expected int16 \(\d+, 8\), got int32"):
        encode_shard(source.header, {**rows, "y_hat": rows["y_hat"].astype(np.int32)})
    with pytest.raises(StoreError, match=r"z_hat: expected .*, got None"):
        encode_shard(source.header, {name: rows[name] for name in ("y_hat", "scale_index")})
