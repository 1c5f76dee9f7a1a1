# ruff: noqa: D102 (Folder documents the methods)
"""Object storage, or a web server that is read from, as a location for objects (location.py)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from latentset.datasets.errors import LatentSetError, MissingEnvironmentError, StoreError
from latentset.datasets.storage.access import changing, reading

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}
"""The extra of setup.cfg for each kind of URL."""

_OPTIONS: dict[str, Any] = {"use_listings_cache": False}
"""Other processes write to the same location: what was listed before may not hold any more."""


@dataclass(frozen=True)
class Bucket:
    """Names with one prefix in object storage (s3, gs), or below an address on a web server.

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
        """Scheme of the URL: ``s3``, ``gs``, ``http``, ``https``."""
        return self.url.partition("://")[0]

    @property
    def is_web(self) -> bool:
        """Whether it is a web server, which is only read from."""
        return self.protocol in ("http", "https")

    def read(self, path: str) -> bytes:
        with _as_os_errors(f"{self.url}/{path}"):
            content: bytes = self._service().cat_file(f"{self.url}/{path}")
        return content

    def write(self, path: str, content: bytes) -> None:
        self._put(path, content, "overwrite")

    def create(self, path: str, content: bytes) -> bool:
        return self._put(path, content, "create")

    def _put(self, path: str, content: bytes, mode: str) -> bool:
        target = self._changeable("write", path)
        with changing("write", target), suppress(FileExistsError), _as_os_errors(target):
            self._service().pipe_file(target, content, mode=mode)
            return True
        return False

    def remove(self, path: str) -> None:
        target = self._changeable("remove", path)
        with changing("remove", target), suppress(FileNotFoundError), _as_os_errors(target):
            self._service().rm_file(target)

    def size(self, path: str) -> int | None:
        target = f"{self.url}/{path}"
        with reading(target), suppress(FileNotFoundError), _as_os_errors(target):
            found: int = self._service().info(target)["size"]
            return found
        return None

    def sizes(self) -> dict[str, int] | None:
        """As Folder; None for a web server, which cannot list what it holds."""
        if self.is_web:
            return None
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

        self._require_parts()
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
            case "http" | "https":
                self._require_parts()
                base = f"{self.protocol}://{host}"
                return {"driver": "http", "base_url": base, "path": f"/{below}"}
            case other:
                raise StoreError(
                    f"{self.url}: expected s3://, gs://, http:// or https:// for training, got "
                    f"{other}://; copy the store to a folder first"
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

    def _require_parts(self) -> None:
        """Refuse a web server that cannot serve parts of files: chunks are inside of shards."""
        if self.is_web:
            with _as_os_errors(self.url):
                found = self._service().cat_file(f"{self.url}/zarr.json", start=0, end=1)
            if len(found) != 1:
                raise StoreError(
                    f"{self.url}: this web server sends whole files where a part is asked for "
                    "(it ignores Range requests), so that chunks cannot be read: use one that "
                    "serves parts (nginx, Apache, Caddy, object storage), or copy the store"
                )

    def _changeable(self, what: str, path: str) -> str:
        target = f"{self.url}/{path}"
        if self.is_web:
            raise StoreError(
                f"cannot {what} {target}: a web server is only read from; "
                "name a folder, s3://… or gs://…"
            )
        return target

    def _service(self) -> Any:
        import fsspec

        try:
            return fsspec.filesystem(self.protocol, **_OPTIONS)
        except ImportError as error:
            extra = _EXTRAS.get(self.protocol)
            advice = f": pip install 'latentset[{extra}]'" if extra else ""
            raise MissingEnvironmentError(
                f"{self.url}: this environment cannot reach {self.protocol}:// ({error}){advice}"
            ) from error
        except ValueError as error:
            raise StoreError(
                f"{self.url}: no way to reach {self.protocol}:// is known ({error}); expected a "
                "folder, s3://, gs://, http:// or https://"
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
