"""The folders and images below a root, each folder listed once; what is not listed is counted."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from latentset.datasets.errors import SourceError
from latentset.datasets.sources.root import ImageRoot, resolve_root

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")
"""``torchvision.datasets.folder.IMG_EXTENSIONS`` and ``.gif``; upper or lower case."""

_JUNK = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found")
"""Folders that other programs leave, with thumbnails and shadows of files in them."""


class Tree:
    """Folders and images below a root; paths are relative to it.

    Files are not opened: the directory itself tells what is a link. Names that begin with a dot are
    skipped. ``paths`` stand for what is there: a listing of object storage, or of tar files.
    """

    def __init__(
        self, root: ImageRoot, paths: Iterable[str] | None = None, *, is_packed: bool = False
    ) -> None:
        self.root = root
        self.is_packed = is_packed
        """Whether folders are within tar files."""
        self.excluded: Counter[str] = Counter()
        """How many names were skipped, by reason."""
        self._objects = None if paths is None else group_names(paths)
        self._scanned: dict[str, tuple[list[str], list[str]]] = {}

    def folders(self, folder: str) -> list[str]:
        """The sorted names of the folders directly in a folder."""
        return self._scan(folder)[0]

    def images(self, folder: str) -> list[str]:
        """The sorted names of the images directly in a folder."""
        return self._scan(folder)[1]

    def images_below(self, folder: str) -> list[str]:
        """Paths of the images in and below a folder, in torchvision's order."""
        parents, pending = [], [folder]
        while pending:
            parent = pending.pop()
            parents.append(parent)
            pending += [join(parent, name) for name in self.folders(parent)]
        return [join(parent, name) for parent in sorted(parents) for name in self.images(parent)]

    def has_images(self, folder: str) -> bool:
        """Whether there is an image in or below a folder."""
        return bool(self.images(folder)) or any(
            self.has_images(join(folder, name)) for name in self.folders(folder)
        )

    def _scan(self, folder: str) -> tuple[list[str], list[str]]:
        """List folders and images in a folder.

        Raises:
            SourceError: A link leads out of the root, in a circle, or to a folder above itself.
        """
        if folder in self._scanned:
            return self._scanned[folder]
        folders, images = [], []
        for name, is_folder in self._names(folder):
            if name.startswith("."):
                self.excluded["hidden names"] += 1
            elif is_folder and name in _JUNK:
                self.excluded[f"folder {name}"] += 1
            elif is_folder:
                folders.append(name)
            elif name.lower().endswith(EXTENSIONS):
                images.append(name)
            else:
                ending = Path(name).suffix.lower()
                self.excluded[f"{ending} files" if ending else "files without ending"] += 1
        self._scanned[folder] = sorted(folders), sorted(images)
        return self._scanned[folder]

    def _names(self, folder: str) -> Iterator[tuple[str, bool]]:
        """Yield what is in a folder by name, and whether it is a folder."""
        if self._objects is not None:
            yield from self._objects.get(folder, {}).items()
            return
        path = self.root / folder
        try:
            with os.scandir(str(path)) as entries:
                found = list(entries)
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
        for entry in found:
            hidden = entry.name.startswith(".")
            if not hidden and entry.is_symlink() and not self._check_link(folder, entry):
                self.excluded["broken links"] += 1
            else:
                yield entry.name, not hidden and entry.is_dir()

    def _check_link(self, folder: str, entry: os.DirEntry[str]) -> bool:
        """Whether a link is listed: it is not broken, or is an image (of status "missing")."""
        root = Path(str(self.root))
        link, target = join(folder, entry.name), Path(os.path.realpath(entry))
        if not target.is_relative_to(root):
            raise SourceError(
                f"{self.root}: the link {link!r} leads out of the source; put what it points to"
                " in its location, or give a list (CSV or Parquet) with a root above both"
            )
        if Path(os.path.realpath(root / folder)).is_relative_to(target):
            raise SourceError(f"{self.root}: the link {link!r} leads back to a folder above itself")
        try:
            entry.stat()
        except (FileNotFoundError, NotADirectoryError):
            return link.lower().endswith(EXTENSIONS)
        except OSError as error:  # links in a circle, no permission
            raise SourceError(
                f"{self.root}: the link {link!r} cannot be followed ({error.strerror}): repair or "
                "remove it"
            ) from error
        return True


def list_images(folder: Path) -> list[Path]:
    """The images in and below a folder, whatever it is; SourceError if there are none."""
    root = resolve_root(folder)
    found = [root / path for path in Tree(root).images_below("")]
    if not found:
        raise SourceError(f"{folder}: no images ({' '.join(EXTENSIONS)}) in or below it")
    return found


def join(folder: str, name: str) -> str:
    """Path of a name in a folder; the root's is empty."""
    return f"{folder}/{name}" if folder else name


def group_names(paths: Iterable[str]) -> dict[str, dict[str, bool]]:
    """For each folder in the paths of objects, its names, and whether each is a folder.

    Left out are paths that no file has: with an empty part, ``.`` or ``..``, as the objects that
    stand for folders have.
    """
    found: dict[str, dict[str, bool]] = defaultdict(dict)
    for path in paths:
        if {"", ".", ".."}.isdisjoint(path.split("/")):
            parent, _, name = path.rpartition("/")
            found[parent].setdefault(name, False)
            while parent:
                parent, _, name = parent.rpartition("/")
                if found[parent].get(name):
                    break
                found[parent][name] = True
    return found
