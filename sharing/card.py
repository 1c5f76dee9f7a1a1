"""The card of a store: a folder of what people and programs must know of it (docs/sharing.md).

``README.md``, ``croissant.json``, ``statistics.json``, ``figures/`` and perhaps ``LICENSE``; beside
the objects of a published store they describe it. Nothing is written into the store itself, and the
same store gives the same bytes.
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from latentset.datasets.errors import (
    MissingEnvironmentError,
    StoreCorruptError,
    StoreError,
    StoreIncompleteError,
)
from latentset.datasets.storage.access import reading
from latentset.datasets.storage.location import Folder, read_if_there
from latentset.datasets.store.digests import Digest, StoredObject, describe_object, sha256_of
from latentset.datasets.store.findings import Report, silent
from latentset.datasets.store.manifest import MANIFEST, Manifest, parse_manifest
from latentset.datasets.store.samples import OK, order_splits
from latentset.datasets.store.statistics import ChannelStatistics, measure_channels
from latentset.datasets.store.store import Store
from latentset.sharing.croissant import CROISSANT, describe_store
from latentset.sharing.figures import FIGURES, draw_figures
from latentset.sharing.markdown import clean
from latentset.sharing.readme import MARK, README, STATISTICS, Card, statistics_json, write_readme
from latentset.sharing.terms import LICENSE_FILE, License, require_license

_FILES = {README, CROISSANT, STATISTICS, LICENSE_FILE, *FIGURES}
"""Every file that a card may have."""

_MAX_SPLITS = 8
"""Splits that a card tells apart; a store of ours has at most four."""

_OTHERS = "(others)"


def write_card(
    store: Store,
    folder: Path,
    *,
    license: License | None = None,
    verified: bool = False,
    address: str | None = None,
    report: Report = silent,
) -> list[str]:
    """Write the card of a store into a folder; an earlier card there is replaced.

    Args:
        store: A complete store; its latents are read once, in blocks.
        folder: Made where there is none; not inside the store.
        license: Of the store. None is assumed.
        verified: Whether all of the store was verified right before.
        address: Where it will be, for the card's commands; ``STORE`` where None.
        report: Called with the progress.

    Returns:
        The files, relative to ``folder``, sorted.

    Raises:
        StoreError: The store is not complete, its images come with terms and no licence was
            named, the folder holds another README.md, or it cannot be written.
        StoreCorruptError: A chunk does not match its checksum.
        MissingEnvironmentError: The extra ``hub`` is not installed.
    """
    if store.manifest is None:
        raise StoreIncompleteError(f"{store.location} is not complete: it has no card")
    require_license(store.header, license)
    _check_folder(store, folder)
    _check_environment()
    digest = manifest_digest(store, store.manifest)
    statistics: dict[str, ChannelStatistics] = {
        name: measure_channels(store, name, report) for name in _measured(store)
    }
    samples, counts = _count(store)
    files: dict[str, bytes] = {STATISTICS: statistics_json(digest, statistics)}
    figures = draw_figures(store, counts, statistics.get("y_hat"))
    files |= figures
    if license is not None and license.text:
        files[LICENSE_FILE] = license.text.encode()
    name = "STORE.h5" if store.format == "hdf5" else "STORE"
    card = Card(
        store=store,
        digest=digest,
        license=license,
        verified=verified,
        address=clean(address or name, 1000),
        counts=counts,
        samples=samples,
        statistics=statistics,
        figures=tuple(figures),
    )
    objects = (
        *_objects(store, store.manifest),
        *(describe_object(path, content) for path, content in sorted(files.items())),
    )
    files[CROISSANT] = describe_store(
        store, objects, title=card.title, digest=digest, license=license, url=_web_page(address)
    )
    files[README] = write_readme(card).encode()
    target = Folder(folder.resolve())
    if target.size(README) is not None:  # an earlier card
        for path in _FILES - files.keys():
            target.remove(path)
    for path, content in files.items():
        target.write(path, content)
    return sorted(files)


def manifest_digest(store: Store, manifest: Manifest) -> str:
    """The digest that names a store: SHA-256 of its manifest, as it is stored.

    Raises:
        StoreCorruptError: The manifest is another one than when the store was opened.
    """
    if store.format == "hdf5":
        return sha256_of(manifest.to_bytes())
    content = read_if_there(store.location, MANIFEST)
    if content is None or parse_manifest(content, str(store.location)) != manifest:
        raise StoreCorruptError(f"{store.location}: {MANIFEST} has changed since it was opened")
    return sha256_of(content)


def _measured(store: Store) -> tuple[Literal["y_hat", "sigma_hat", "pixels"], ...]:
    return ("y_hat", "sigma_hat") if store.header.pixels is None else ("pixels",)


def _check_folder(store: Store, folder: Path) -> None:
    """Refuse a folder inside the store, and one whose README.md is no card."""
    target, location = folder.resolve(), store.location
    if isinstance(location, Folder) and target.is_relative_to(location.path):
        raise StoreError(
            f"{folder} is inside the store, which a card would damage: name another folder (-o)"
        )
    readme = target / README
    with reading(readme):
        if not readme.is_file():
            return
        with readme.open("rb") as file:
            ours = MARK.encode() in file.read(1 << 16)
        if not ours:
            raise StoreError(
                f"{readme} is not a card that latentset wrote: it is left as it is; name another "
                "folder (-o)"
            )


def _check_environment() -> None:
    for package in ("huggingface_hub", "matplotlib"):
        try:
            import_module(package)
        except ModuleNotFoundError as error:
            raise MissingEnvironmentError(
                f"a card needs {package}, which this environment lacks: "
                "pip install '.[hub]' in its clone"
            ) from error


def _objects(store: Store, manifest: Manifest) -> Iterator[StoredObject]:
    """The files of a store, with their digests."""
    if store.format == "zarr":
        content = read_if_there(store.location, MANIFEST) or b""
        yield from (*manifest.objects, describe_object(MANIFEST, content))
    elif isinstance(store.location, Folder):
        digest, path = Digest(), store.location.path
        with reading(path), path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        yield digest.describe(clean(path.name, 200))


def _count(store: Store) -> tuple[dict[str, tuple[int, int]], dict[str, NDArray[np.int64]]]:
    """Samples of each split that are in the arrays and that failed; those of each class.

    Classes are counted of samples in the arrays, and only where a split has some.
    """
    table, classes = store.samples, len(store.header.source.classes)
    ok = pc.equal(table["status"], OK).to_numpy()
    label = table["label"].to_numpy()
    column = table["split"].to_numpy(zero_copy_only=False)
    found = order_splits(pc.unique(table["split"]).to_pylist())
    named, rest = found, np.zeros(len(column), bool)
    if len(found) > _MAX_SPLITS:
        named = found[: _MAX_SPLITS - 1]
        rest = ~np.isin(column, named)
    samples: dict[str, tuple[int, int]] = {}
    counts: dict[str, NDArray[np.int64]] = {}
    for split in (*named, *((_OTHERS,) if rest.any() else ())):
        mine = rest if split == _OTHERS else column == split
        good = mine & ok
        samples[split] = int(good.sum()), int((mine & ~ok).sum())
        if good.any():
            counts[split] = np.bincount(label[good & (label >= 0)], minlength=classes)
    return samples, counts


def _web_page(address: str | None) -> str | None:
    """The page of a store's address in the web, if it has one."""
    scheme, _, rest = (address or "").partition("://")
    if scheme == "hf":
        return f"https://huggingface.co/{rest.partition('@')[0]}"
    return address if scheme in ("http", "https") else None
