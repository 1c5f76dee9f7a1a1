"""Where the images of a source are: below a folder, or below a prefix in object storage."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from latentset.datasets.errors import ImageError, SourceError
from latentset.datasets.sources.remote_image import RemoteImage
from latentset.datasets.sources.tar_member import TarMember, TarPart, split_path
from latentset.datasets.storage.location import Bucket, Folder, open_location

ImageRoot = Path | Bucket

PACKED = (".gz", ".tgz", ".zip", ".7z", ".rar", ".zst", ".bz2", ".xz")
"""Endings of archives that are not read."""


ImageFile = Path | RemoteImage | TarMember


def is_there(image: ImageFile) -> bool:
    """Whether there is a file, an object or a member."""
    if isinstance(image, Path):
        return image.exists()
    try:
        return image.size >= 0
    except ImageError:
        return False


def open_root(location: ImageRoot | str) -> ImageRoot:
    """The folder, or the prefix in object storage (``s3://…``, ``gs://…``), of a path or URL."""
    if isinstance(location, str) and "://" in location:
        opened = open_location(location)
        if isinstance(opened, Folder):
            return opened.path
        if isinstance(opened, Bucket):
            return opened
        raise SourceError(
            f"{location}: images are listed in a folder, s3://… or gs://…, and a web server has no "
            "list of them; fetch them first"
        )
    path = Path(location) if isinstance(location, str) else location
    if isinstance(path, Path) and not path.exists() and path.parts[:1] in (("s3:",), ("gs:",)):
        raise SourceError(f"{location}: expected a folder or {path.parts[0]}//BUCKET/…")
    return path


def resolve_root(location: Path) -> Path:
    """Return a folder absolute and free of links; SourceError if it is none."""
    if not location.is_dir():
        found = "a file" if location.exists() else "nothing"
        hint = "; unpack it first" if location.suffix.lower() in PACKED else ""
        raise SourceError(f"{location}: expected a folder of images, found {found}{hint}")
    return location.resolve()


def resolve_inside(root: ImageRoot, path: str, part: Sequence[int] | None = None) -> ImageFile:
    """A sample's file, by its absolute path, object, or member of a tar file; it need not exist.

    Links are followed, so call this when the file is about to be opened: what was inside the root
    when the samples were listed need not be inside now. ``part`` is where a member of a tar file
    lies (``Source.samples``); without it the file is searched.

    Raises:
        SourceError: The path is absolute, has "..", or its links end outside the root.
    """
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts or "\x00" in path:
        raise SourceError(f"path {path!r} is not below the source's root {root}")
    known, packed = TarPart(*part) if part else None, split_path(path)
    if isinstance(root, Bucket):
        if packed and (known or root.size(packed[0]) is not None):
            return TarMember(RemoteImage(root, packed[0]), packed[1], known)
        return RemoteImage(root, path)
    base = Path(os.path.realpath(root))
    target = Path(os.path.realpath(base / relative))
    if not target.is_relative_to(base):
        raise SourceError(f"path {path!r} leads by a link out of the source's root {root}")
    if packed:
        tar = Path(os.path.realpath(base / packed[0]))
        if tar.is_relative_to(base) and tar.is_file():
            return TarMember(tar, packed[1], known)
    return target
