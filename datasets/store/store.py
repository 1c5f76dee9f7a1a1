"""A store that was opened for reading: what its two formats have in common."""

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latentset.datasets.errors import StoreCorruptError, StoreError
from latentset.datasets.storage.access import unreachable
from latentset.datasets.storage.location import Location
from latentset.datasets.store.arrays import array_form
from latentset.datasets.store.formats import Format
from latentset.datasets.store.header import ArrayName, Header
from latentset.datasets.store.manifest import Manifest
from latentset.datasets.store.samples import OK, SAMPLES, SAMPLES_GROUP
from latentset.datasets.store.scales import scale_indexes


@dataclass(frozen=True)
class Store(ABC):
    """A store that was opened for reading."""

    location: Location
    header: Header
    samples: pa.Table
    """One row a sample (docs/store-spec.md, 5); empty in an incomplete store."""
    manifest: Manifest | None
    """None in an incomplete store."""

    format: ClassVar[Format]

    @property
    def fingerprint(self) -> str:
        """Identifies the settings that it was made with; empty in an incomplete store."""
        return self.manifest.fingerprint if self.manifest else ""

    def shape(self, name: ArrayName) -> tuple[int, int]:
        """(rows, channels) of an array by the header; StoreError if the store has no such array."""
        if name not in self.header.arrays:
            raise StoreError(
                f"{self.location} has no array {name!r}; it has {', '.join(self.header.arrays)}"
            )
        return array_form(self.header, name).shape

    @abstractmethod
    def array(self, name: ArrayName) -> Any:
        """Open an array for reading, slowly; see train/data/reader.py for a fast way.

        Returns something with ``shape`` (rows, channels), ``dtype``, and slices that are NumPy
        arrays.

        Raises:
            StoreError: The store has no such array.
            StoreCorruptError: Its metadata differs from the header.
        """

    def stored_bytes(self) -> dict[str, int]:
        """Bytes that each array and ``samples.parquet`` take where they are stored."""
        stored: Counter[str] = Counter()
        for item in self.manifest.objects if self.manifest else ():
            name = item.path.partition("/")[0]
            stored[SAMPLES if name == SAMPLES_GROUP else name] += item.bytes
        return dict(stored)

    def read_rows(self, name: ArrayName, first: int, count: int) -> NDArray[Any]:
        """Read rows of an array, (count, channels), its values as they are stored.

        Raises:
            StoreCorruptError: A chunk does not match its checksum.
            StoreUnreachableError: An object cannot be read.
        """
        try:
            return np.asarray(self.array(name)[first : first + count])
        except StoreError:
            raise
        except OSError as error:
            raise unreachable(f"{self.location}/{name}", error) from error
        except (ValueError, RuntimeError) as error:
            raise StoreCorruptError(
                f"{self.location}: {name}, rows from {first}: {error}. An object was altered"
            ) from error

    def read_shard(self, index: int) -> dict[ArrayName, NDArray[Any]]:
        """Read all rows of one shard of every array; raises as :meth:`read_rows` does."""
        rows = {name: array_form(self.header, name).shard_rows for name in self.header.arrays}
        return {name: self.read_rows(name, index * n, n) for name, n in rows.items()}

    def read_sample(self, index: int) -> dict[str, NDArray[Any]]:
        """Read the sample in row ``index`` of the samples table, slowly.

        Returns:
            ``y_hat`` int16 (h, w, C), ``scale_index`` uint8 (h, w, C; the codec's own index, 0 for
            the least sigma_hat, whatever number stands for it in the array), ``z_hat`` int16
            (hz, wz, Cz; add the header's ``z_offset``), ``sigma_hat`` float32 (h, w, C). Of a store
            of pixels, ``pixels`` uint8 (H, W, 3).

        Raises:
            StoreError: The sample has no latents, or as :meth:`read_rows`.
        """
        arrays: dict[str, NDArray[Any]] = {
            name: self.read_grid(index, name) for name in self.header.arrays if name != "sigma_hat"
        }
        codec, numbers = self.header.codec, arrays.get("scale_index")
        if codec is None or numbers is None:
            return arrays
        if numbers.max() >= len(codec.scale_table):
            name = self.samples.column("id")[index].as_py()
            raise StoreCorruptError(
                f"{self.location}: scale_index of sample {index} ({name}): expected less than "
                f"{len(codec.scale_table)}, the length of the scale table, got {numbers.max()}"
            )
        return {
            **arrays,
            "scale_index": scale_indexes(codec)[numbers],
            "sigma_hat": np.asarray(codec.scale_table, np.float32)[numbers],
        }

    def read_grid(self, index: int, name: ArrayName) -> NDArray[Any]:
        """Read one array of one sample, (h, w, channels), as stored; raises as read_sample."""
        sample = self.samples.slice(index, 1).to_pylist()[0]
        if sample["status"] != OK:
            raise StoreError(
                f"{self.location}: sample {index} ({sample['id']}) has no {self.header.noun}: "
                f"{sample['status']}: {sample['reason']}"
            )
        first, size = sample["first_row"], (sample["latent_height"], sample["latent_width"])
        if name == "z_hat":
            first, size = sample["z_first_row"], self.header.content.z_grid(*size)
        return self.read_rows(name, first, size[0] * size[1]).reshape(*size, -1)
