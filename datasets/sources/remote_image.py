"""An image, or a tar file of images, in object storage."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import IO

from latentset.datasets.errors import ImageError
from latentset.datasets.storage.access import reading
from latentset.datasets.storage.location import Bucket


@dataclass(frozen=True)
class RemoteImage:
    """An object.

    What is not there is an ImageError, whose status the samples table records; a service that does
    not answer is a StoreUnreachableError, which stops a job.
    """

    bucket: Bucket
    path: str

    def __str__(self) -> str:
        return f"{self.bucket}/{self.path}"

    @property
    def name(self) -> str:
        """Last part of its path."""
        return self.path.rpartition("/")[2]

    @cached_property
    def size(self) -> int:
        """Bytes of the object."""
        size = self.bucket.size(self.path)
        if size is None:
            raise ImageError("no such file", "missing")
        return size

    def read(self, limit: int | None = None) -> bytes:
        """Read the object, or its first ``limit`` bytes."""
        return self.read_part(0, limit)

    def read_part(self, first: int, size: int | None) -> bytes:
        """Read ``size`` bytes from a byte on, or all that follow."""
        with reading(str(self)):
            try:
                if size is None:
                    return self.bucket.read(self.path)
                return self.bucket.read_part(self.path, first, size)
            except FileNotFoundError as error:
                raise ImageError("no such file", "missing") from error
            except OSError as error:
                if first and first >= (self.bucket.size(self.path) or 0):
                    raise ImageError(f"{self.name} is shorter than it was", "changed") from error
                raise

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the object to be read forwards."""
        with reading(str(self)), self.bucket.open(self.path) as file:
            yield file
