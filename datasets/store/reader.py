"""Opening a store, after the checks that cost little (docs/store-spec.md, 1 and 6)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray

from latentset.datasets.errors import (
    StoreCorruptError,
    StoreError,
    StoreFormatError,
    StoreIncompleteError,
)
from latentset.datasets.store.header import ATTRIBUTE, ArrayName, Header, parse_header
from latentset.datasets.store.manifest import MANIFEST, Manifest, parse_manifest
from latentset.datasets.store.objects import read_object
from latentset.datasets.store.samples import OK, SAMPLES, SAMPLES_SCHEMA, parse_samples
from latentset.datasets.store.scales import scale_indexes
from latentset.datasets.store.writer import DTYPES


@dataclass(frozen=True)
class Store:
    """A store that was opened for reading."""

    path: Path
    """Its folder."""
    header: Header
    """What its numbers mean."""
    samples: pa.Table
    """One row a sample (docs/store-spec.md, 5); empty in an incomplete store."""
    manifest: Manifest | None
    """What it consists of; None in an incomplete store."""

    @property
    def fingerprint(self) -> str:
        """Identifies the settings that it was made with; empty in an incomplete store."""
        return self.manifest.fingerprint if self.manifest else ""

    def array(self, name: ArrayName) -> zarr.Array[Any]:
        """Open an array with zarr-python.

        Args:
            name: One of the header's ``arrays``.

        Returns:
            The array (rows, channels). Reading it is slow; see train/reader.py for a fast way.

        Raises:
            StoreError: The store has no such array.
            StoreCorruptError: Its metadata differs from the header.
        """
        if name not in self.header.arrays:
            raise StoreError(
                f"{self.path} has no array {name!r}; it has {', '.join(self.header.arrays)}"
            )
        layout, codec = self.header.layout, self.header.codec
        expected = (
            (layout.shards * layout.z_shard_rows, codec.z_channels)
            if name == "z_hat"
            else (layout.shards * layout.shard_rows, codec.channels)
        )
        array = zarr.open_array(self.path / name, mode="r")
        if array.shape != expected or array.dtype != np.dtype(DTYPES[name]):
            raise StoreCorruptError(
                f"{self.path}: {name}: expected {DTYPES[name]} {expected}, "
                f"got {array.dtype} {array.shape}"
            )
        return array

    def read_sample(self, index: int) -> dict[str, NDArray[Any]]:
        """Read one sample with zarr-python, for checks and a look.

        Args:
            index: Row of the samples table.

        Returns:
            ``y_hat`` int16 (h, w, C), ``scale_index`` uint8 (h, w, C; the codec's own index, 0 for
            the least sigma_hat, whatever number stands for it in the array), ``z_hat`` int16
            (hz, wz, Cz; add the header's ``z_offset``), ``sigma_hat`` float32 (h, w, C).

        Raises:
            StoreError: The sample has no latents.
            StoreCorruptError: A chunk does not match its checksum.
        """
        sample = self.samples.slice(index, 1).to_pylist()[0]
        if sample["status"] != OK:
            raise StoreError(
                f"{self.path}: sample {index} ({sample['id']}) has no latents: "
                f"{sample['status']}: {sample['reason']}"
            )
        codec = self.header.codec
        size = (sample["latent_height"], sample["latent_width"])
        ratio = codec.z_downsampling // codec.y_downsampling
        z_size = (-(-size[0] // ratio), -(-size[1] // ratio))
        numbers = self._grid("scale_index", sample["first_row"], size)
        if numbers.max() >= len(codec.scale_table):
            raise StoreCorruptError(
                f"{self.path}: scale_index of sample {index} ({sample['id']}): expected less than "
                f"{len(codec.scale_table)}, the length of the scale table, got {numbers.max()}"
            )
        return {
            "y_hat": self._grid("y_hat", sample["first_row"], size),
            "scale_index": scale_indexes(codec)[numbers],
            "z_hat": self._grid("z_hat", sample["z_first_row"], z_size),
            "sigma_hat": np.asarray(codec.scale_table, np.float32)[numbers],
        }

    def _grid(self, name: ArrayName, first: int, size: tuple[int, int]) -> NDArray[Any]:
        try:
            rows = np.asarray(self.array(name)[first : first + size[0] * size[1]])
        except StoreError:
            raise
        except (ValueError, RuntimeError, OSError) as error:
            raise StoreCorruptError(
                f"{self.path}: {name}, rows from {first}: {error}. An object was altered: "
                "fetch it again, or encode the store again"
            ) from error
        return rows.reshape(*size, -1)


def open_store(path: Path | str, *, allow_incomplete: bool = False) -> Store:
    """Open a store for reading.

    Checked are the manifest, that every object is there with its size, the digests of the metadata
    and of the samples table, and that the samples lie inside the arrays. The latents carry
    checksums of their own, which are checked when they are read.

    Args:
        path: The store's folder.
        allow_incomplete: Open a store that is not finished too, for a look at its header.

    Returns:
        The store.

    Raises:
        StoreFormatError: There is no store, or it is of a version that this reader does not know.
        StoreIncompleteError: The store has no manifest.
        StoreCorruptError: The store differs from its manifest.
    """
    path = Path(path)
    header = _read_header(path)
    if not (path / MANIFEST).exists():
        if allow_incomplete:
            return Store(path, header, SAMPLES_SCHEMA.empty_table(), None)
        raise StoreIncompleteError(
            f"{path} is not complete: {MANIFEST} is missing. The job that writes it was "
            "interrupted or is still running: run the same latentset encode again"
        )
    manifest = parse_manifest((path / MANIFEST).read_bytes(), str(path))
    _check_objects(path, header, manifest)
    samples = parse_samples((path / SAMPLES).read_bytes(), header, str(path))
    if samples.num_rows != manifest.samples.total:
        raise StoreCorruptError(
            f"{path}: {SAMPLES}: expected {manifest.samples.total} rows, got {samples.num_rows}"
        )
    return Store(path, header, samples, manifest)


def _read_header(path: Path) -> Header:
    if not path.exists():
        raise StoreFormatError(f"{path}: no such folder: expected a store; look at the spelling")
    if not (path / "zarr.json").is_file():
        raise StoreFormatError(f"{path} is not a LatentSet store: expected a folder with zarr.json")
    try:
        attributes = zarr.open_group(path, mode="r").attrs.asdict()
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise StoreFormatError(
            f"{path} is not a LatentSet store: zarr.json cannot be read: {error}"
        ) from error
    return parse_header(attributes.get(ATTRIBUTE), str(path))


def _check_objects(path: Path, header: Header, manifest: Manifest) -> None:
    """Every object is there with its size; small ones have their digest."""
    listed = {item.path: item for item in manifest.objects}
    digested = {"zarr.json", SAMPLES, *(f"{name}/zarr.json" for name in header.arrays)}
    if header.layout.shards != len(manifest.shards):
        raise StoreCorruptError(
            f"{path}: {MANIFEST}: expected {header.layout.shards} shards (the header's "
            f"layout.shards), got {len(manifest.shards)}"
        )
    shards = [f"{name}/c/{k}/0" for name in header.arrays for k in range(header.layout.shards)]
    for name in (*sorted(digested), *shards):
        if name not in listed:
            raise StoreCorruptError(f"{path}: {MANIFEST} does not list {name}")
    for item in manifest.objects:
        try:
            size = (path / item.path).stat().st_size
        except OSError as error:
            raise StoreCorruptError(
                f"{path}: {item.path} is missing or cannot be read ({error.strerror}): "
                "fetch it again, or encode the store again"
            ) from error
        if size != item.bytes:
            raise StoreCorruptError(
                f"{path}: {item.path}: expected {item.bytes} bytes, got {size}: "
                "fetch it again, or encode the store again"
            )
        if item.path in digested and read_object(path, item) is None:
            raise StoreCorruptError(
                f"{path}: {item.path} differs from its sha256 in {MANIFEST}: "
                "fetch it again, or encode the store again"
            )
