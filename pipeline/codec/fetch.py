"""Download of published codecs into the cache folder.

A file gets its name after it is checked. Its SHA-256 is recorded beside it at the first fetch, in
the form of ``sha256sum``, and a later file of that name must be the same.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from latentset.datasets.errors import (
    CodecError,
    CodecNotFoundError,
    FetchError,
    StoreError,
    suggest,
)
from latentset.datasets.storage.atomic import atomic_file, write_atomically
from latentset.datasets.storage.location import open_location
from latentset.pipeline.codec.catalogue import (
    PUBLISHED,
    SUFFIX,
    cache_folder,
    read_record,
    record_path,
    shipped_codecs,
)

PUBLISHED_URL = "https://storage.googleapis.com/tensorflow_compression/metagraphs"
"""Where the authors publish (tensorflow/compression, ``models/tfci.py``)."""

_MAX_BYTES = 1 << 30
"""Of a codec's file; the weights of the largest published one take 48 MB."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class FetchedCodec:
    """A codec in the cache folder."""

    name: str
    path: Path
    sha256: str
    downloaded: bool


def fetch_codec(
    name: str, *, cache: Path | None = None, url_prefix: str | None = None, console: Console
) -> FetchedCodec:
    """Put a codec into the cache folder; a file that is there already is checked alike.

    ``url_prefix`` is the location of ``NAME.metagraph``, as a store's; by default that of the
    codecs' authors.

    Raises:
        CodecNotFoundError: The name is not that of a published codec, and no URL is given.
        FetchError: The download failed or was cut, or the file is no codec, is not the published
            one of that name, or differs from the one recorded at the first fetch; none is kept.
    """
    if name in shipped_codecs():
        raise CodecNotFoundError(f"{name} is shipped with LatentSet: there is nothing to fetch")
    if not _NAME.fullmatch(name):
        raise CodecNotFoundError(f"{name!r} is not a codec's name")
    if url_prefix is None and name not in PUBLISHED:
        raise CodecNotFoundError(
            f"{name!r} is not a published scale hyperprior ('latentset codec list' shows them); "
            f"--url-prefix says where another codec is{suggest(name, PUBLISHED)}"
        )
    path = cache_folder(cache) / (name + SUFFIX)
    if path.is_file():
        return FetchedCodec(name, path, _accept(path, path, name, f"the file {path}"), False)
    url = f"{(url_prefix or PUBLISHED_URL).rstrip('/')}/{name}{SUFFIX}"
    try:
        with atomic_file(path) as partial:
            _download(url_prefix or PUBLISHED_URL, name, partial, console)
            sha256 = _accept(partial, path, name, url)
    except CodecError:
        raise
    except OSError as error:
        raise FetchError(
            f"cannot write {path}: {error.strerror or error}. Name another folder with --cache or "
            "LATENTSET_CACHE"
        ) from error
    return FetchedCodec(name, path, sha256, True)


def _accept(found: Path, path: Path, name: str, origin: str) -> str:
    """Check a file that is to have a codec's path, and record its SHA-256 if it is the first.

    The first file with a published name is loaded and tried.
    """
    from latentset.pipeline.codec.load.codec import Codec
    from latentset.pipeline.codec.load.metagraph import parse_codec_file
    from latentset.pipeline.codec.load.trial import try_once

    recorded = read_record(path)
    try:
        file = parse_codec_file(found.read_bytes(), name)
        if recorded is None and name in PUBLISHED:
            try_once(found, file.sha256, tensors={}, cache=path.parent)
            Codec(file)
    except CodecError as error:
        raise FetchError(f"{origin} is refused: not a codec that can be used. {error}") from error
    if recorded is None:
        record = record_path(path)
        try:
            write_atomically(record, f"{file.sha256}  {path.name}\n")
        except OSError as error:
            raise FetchError(f"cannot record the SHA-256 in {record}: {error}") from error
    elif recorded != file.sha256:
        raise FetchError(
            f"{origin} differs from what was fetched first: expected the SHA-256 {recorded} "
            f"({record_path(path)}), got {file.sha256}. If the change is meant, remove that record"
        )
    return file.sha256


def _download(prefix: str, name: str, path: Path, console: Console) -> None:
    url, size = f"{prefix.rstrip('/')}/{name}{SUFFIX}", 0
    columns = (TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=console, disable=not console.is_terminal)
    task = bar.add_task(name, total=None)
    if not console.is_terminal:
        console.print(f"fetching {name}", highlight=False)
    try:
        with bar, path.open("wb") as file:
            for piece in open_location(prefix).stream(name + SUFFIX):
                size += file.write(piece)
                if size > _MAX_BYTES:
                    raise FetchError(
                        f"{url} is refused: expected at most {_MAX_BYTES} bytes, got more; nothing "
                        "was kept"
                    )
                bar.update(task, completed=size)
    except FileNotFoundError as error:
        raise FetchError(f"there is nothing at {url} (404 or no such file)") from error
    except (StoreError, OSError) as error:
        if isinstance(error, FetchError):
            raise
        raise FetchError(f"the download of {url} failed: {error}; nothing was kept") from error
    if not console.is_terminal:
        console.print(f"fetched {name}: {size} bytes", highlight=False)
