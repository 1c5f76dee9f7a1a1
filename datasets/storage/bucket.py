# ruff: noqa: D102 (Folder documents the methods)
"""Object storage as a location for objects (location.py)."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

from latentset.datasets.errors import (
    LatentSetError,
    MissingEnvironmentError,
    StoreCorruptError,
    StoreError,
)
from latentset.datasets.storage.access import READ_BYTES, changing, reading

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""The extra of setup.cfg for each kind of URL."""

_OPTIONS: dict[str, Any] = {"use_listings_cache": False}
"""Other processes write to the same location: what was listed before may not hold any more."""

_BLOCK_BYTES = 8 << 20
"""Bytes that one request of a stream asks for."""

_DIGEST = "sha256"
"""Name of the digest in the metadata of an object."""

_METADATA = {"s3": "Metadata", "s3a": "Metadata", "gs": "metadata", "gcs": "metadata"}
"""Which keyword of ``pipe_file`` takes metadata: s3fs's and gcsfs's."""


@dataclass(frozen=True)
class Bucket:
    """Names with one prefix in object storage (s3, gs).

    Credentials and endpoints are those that s3fs and gcsfs find by themselves (environment,
    configuration files, ``FSSPEC_S3_…``).
    """

    url: str
    """Of the prefix, without a slash at its end."""

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def __truediv__(self, name: str) -> "Bucket":
        return Bucket(f"{self.url}/{name}")

    def beside(self, suffix: str) -> "Bucket":
        return Bucket(self.url + suffix)

    @property
    def protocol(self) -> str:
        """Scheme of the URL: ``s3``, ``gs``."""
        return self.url.partition("://")[0]

    def read(self, path: str, limit: int = READ_BYTES) -> bytes:
        target = f"{self.url}/{path}"
        with _as_os_errors(target):
            if limit < READ_BYTES and (size := self._service().info(target)["size"]) > limit:
                raise StoreCorruptError(f"{target}: expected at most {limit:,} bytes, got {size:,}")
            content: bytes = self._service().cat_file(target)
        return content

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """Open an object to be read forwards, in requests of 8 MiB."""
        target = f"{self.url}/{path}"
        with (
            _as_os_errors(target),
            self._service().open(target, "rb", block_size=_BLOCK_BYTES) as file,
        ):
            yield file

    def stream(self, path: str) -> Iterator[bytes]:
        with self.open(path) as file:
            while piece := file.read(_BLOCK_BYTES):
                yield piece

    def read_part(self, path: str, first: int, size: int) -> bytes:
        target = f"{self.url}/{path}"
        with _as_os_errors(target):
            part: bytes = self._service().cat_file(target, start=first, end=first + size)
        return part

    def write(self, path: str, content: bytes) -> None:
        self._put(path, content, "overwrite")

    def create(self, path: str, content: bytes) -> bool:
        return self._put(path, content, "create")

    def _put(self, path: str, content: bytes, mode: str) -> bool:
        target = f"{self.url}/{path}"
        with changing("write", target), suppress(FileExistsError), _as_os_errors(target):
            options: dict[str, Any] = {"mode": mode}
            if self.protocol in _METADATA:
                digest = hashlib.sha256(content).hexdigest()
                options[_METADATA[self.protocol]] = {_DIGEST: digest}
            self._service().pipe_file(target, content, **options)
            return True
        return False

    def digest(self, path: str) -> str | None:
        """As the metadata has it that :meth:`write` gives an object; None without."""
        target = f"{self.url}/{path}"
        with reading(target), _as_os_errors(target), suppress(KeyError):  # gcsfs's, without one
            found: str | None = self._service().getxattr(target, _DIGEST)
            return found
        return None

    def remove(self, path: str) -> None:
        target = f"{self.url}/{path}"
        with changing("remove", target), suppress(FileNotFoundError), _as_os_errors(target):
            self._service().rm_file(target)

    def size(self, path: str) -> int | None:
        target = f"{self.url}/{path}"
        with reading(target), suppress(FileNotFoundError), _as_os_errors(target):
            found = self._service().info(target)
            return int(found["size"]) if found["type"] == "file" else None  # or a prefix
        return None

    def version(self, path: str) -> str:
        """What differs when an object is replaced; empty without an object."""
        target = f"{self.url}/{path}"
        with reading(target), suppress(FileNotFoundError), _as_os_errors(target):
            found = self._service().info(target)
            return str([found.get(key) for key in ("ETag", "etag", "generation", "size")])
        return ""

    def sizes(self) -> dict[str, int]:
        service = self._service()
        prefix = service._strip_protocol(self.url) + "/"  # the one way to fsspec's own names
        with reading(self.url), _as_os_errors(self.url):
            found = service.find(self.url, detail=True)
        return {
            name.removeprefix(prefix): item["size"]
            for name, item in found.items()
            if name.startswith(prefix) and item["type"] == "file"
        }

    def sweep(self) -> None:
        """Nothing is left behind: what was not uploaded whole is not there."""

    def zarr_store(self) -> Any:
        from zarr.storage import FsspecStore

        return FsspecStore.from_url(self.url, storage_options=_OPTIONS, read_only=True)

    def kvstore(self, path: str) -> dict[str, Any]:
        # By hand: to urlsplit, what follows a "?" or "#" would be no part of the name.
        host, _, names = self.url.partition("://")[2].partition("/")
        below = f"{names.strip('/')}/{path}/".lstrip("/")
        match self.protocol:
            case "s3" | "s3a":
                return {"driver": "s3", "bucket": host, "path": below, **self._s3_access()}
            case "gs" | "gcs":
                return {"driver": "gcs", "bucket": host, "path": below}
            case other:
                raise StoreError(
                    f"{self.url}: expected s3:// or gs:// for training, got {other}://; copy the "
                    "store to a folder first"
                )

    def _s3_access(self) -> dict[str, Any]:
        """What s3fs knows and TensorStore does not find by itself."""
        service = self._service()
        endpoint = (
            service.endpoint_url
            or service.client_kwargs.get("endpoint_url")
            or os.environ.get("AWS_ENDPOINT_URL_S3")
            or os.environ.get("AWS_ENDPOINT_URL")
        )
        access: dict[str, Any] = {}
        if endpoint:
            access["endpoint"] = endpoint
            access["aws_region"] = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
        if service.anon:
            access["aws_credentials"] = {"type": "anonymous"}
        return access

    def _service(self) -> Any:
        import fsspec

        try:
            return fsspec.filesystem(self.protocol, **_OPTIONS)
        except ImportError as error:
            extra = _EXTRAS.get(self.protocol)
            advice = f": pip install '.[{extra}]' in its clone" if extra else ""
            raise MissingEnvironmentError(
                f"{self.url}: this environment cannot reach {self.protocol}:// ({error}){advice}"
            ) from error
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"{self.url}: no way to reach {self.protocol}:// is known ({error}); expected a "
                "folder, s3://, gs://, http://, https:// or hf://"
            ) from error


@contextmanager
def _as_os_errors(target: str) -> Iterator[None]:
    """Services have errors of their own; here each is an OSError."""
    try:
        yield
    except (OSError, LatentSetError):
        raise
    except Exception as error:
        raise OSError(f"{target}: {type(error).__name__}: {error}") from error
