"""Publishing a store: data, card, and `manifest.json` alone and last (docs/sharing.md).

No state is kept: what is there already is known by its digest, so that the same command resumes,
from any machine that has the store.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from latentset.datasets.errors import StoreCorruptError, StoreError
from latentset.datasets.storage.access import reading
from latentset.datasets.storage.atomic import PARTIAL
from latentset.datasets.storage.location import Bucket, Folder, Web, open_location
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.digests import StoredObject, describe_object
from latentset.datasets.store.findings import Report, silent
from latentset.datasets.store.manifest import CARD_FILES, MANIFEST, is_card_file
from latentset.datasets.store.summary import format_bytes
from latentset.datasets.store.target_checks import refuse_nested
from latentset.datasets.store.verify import verify
from latentset.sharing.hub import HubTarget
from latentset.sharing.location_target import LocationTarget
from latentset.sharing.readme import MARK, README
from latentset.sharing.terms import has_license, source_terms

_SHOWN = 3
"""Names in a message."""

Destination = HubTarget | LocationTarget


@dataclass(frozen=True)
class Upload:
    """Objects that are published together."""

    source: Folder
    items: tuple[StoredObject, ...]
    missing: tuple[StoredObject, ...]
    """Of these, what the destination lacks, or has with other content."""


@dataclass(frozen=True)
class Publication:
    """What publishing will do; nothing was changed yet."""

    store: Store
    target: Destination
    data: Upload
    card: Upload
    manifest: Upload
    stale: tuple[str, ...] = ()
    """Files of an earlier card there, which this one does not have."""

    @property
    def parts(self) -> tuple[Upload, ...]:
        """In the order of publishing."""
        return self.data, self.card, self.manifest

    @property
    def missing_bytes(self) -> int:
        """Bytes that are to be written."""
        return sum(item.bytes for part in self.parts for item in part.missing)

    def rows(self) -> Iterator[tuple[str, str]]:
        """What to show of it, as names and values."""
        items = [item for part in self.parts for item in part.items]
        written = sum(len(part.missing) for part in self.parts)
        yield "store", str(self.store.location)
        yield "destination", str(self.target)
        size = format_bytes(sum(item.bytes for item in items))
        yield "objects", f"{len(items):,} of {size}"
        yield "to write", f"{written:,} of {format_bytes(self.missing_bytes)}"
        if isinstance(self.target, HubTarget):
            yield from self.target.describe(items)


def plan_publication(
    store: str | Path,
    destination: str | Path,
    card: Path | None = None,
    *,
    public: bool = False,
    report: Report = silent,
) -> Publication:
    """Find out what publishing a store takes, and refuse what cannot end well.

    Args:
        store: Its folder.
        destination: ``hf://datasets/ORG/NAME``, ``s3://…``, ``gs://…``, or a folder.
        card: Folder of README.md, croissant.json, and figures/.
        public: Of a new repository on the Hub: everybody may read it.
        report: Called with bytes that were compared.

    Raises:
        StoreError: The store or its card cannot be published there. Nothing was changed.
    """
    opened = _open(store)
    source, listed = _folder_of(opened), opened.manifest.objects if opened.manifest else ()
    manifest = describe_object(MANIFEST, opened.location.read(MANIFEST))
    target = _open_target(destination, public)
    if isinstance(target, HubTarget):
        target.check_login()
        target.gated = source_terms(opened.header) is not None
    if isinstance(target, LocationTarget):
        _check_location(target.location, source)
    else:
        target.check_limits([*listed, manifest], source)
    there = target.sizes()
    _refuse_foreign(target, there, {MANIFEST, *(item.path for item in listed)})

    def compare(folder: Folder, *items: StoredObject) -> Upload:
        return Upload(folder, items, tuple(target.missing(folder, items, report)))

    plan = Publication(
        opened, target, compare(source, *listed), compare(source), compare(source, manifest)
    )
    if MANIFEST in there:
        _check_published(plan)
    if isinstance(target, LocationTarget) and isinstance(target.location, Folder):
        _check_room(target.location.path, plan.missing_bytes)
    return plan if card is None else add_card(plan, card, report)


def add_card(plan: Publication, card: Path, report: Report = silent) -> Publication:
    """Plan to publish a card too; StoreError if the folder holds none, or anything else."""
    folder, items = _read_card(card)
    terms = source_terms(plan.store.header)
    if terms is not None and not has_license(card / README):
        raise StoreError(
            f"{card / README}: the images of {plan.store.header.source.name} come with terms of "
            "their own: expected a licence and extra_gated_prompt in its front matter, as "
            "latentset card --license … writes them"
        )
    if isinstance(plan.target, HubTarget):
        plan.target.check_card(card / README)
    missing = tuple(plan.target.missing(folder, items, report))
    ours = {item.path for item in items}
    there = plan.target.sizes()
    stale = sorted(path for path in there if is_card_file(path) and path not in ours)
    stale = [path for path in stale if path != ".gitattributes"]
    return replace(plan, card=Upload(folder, items, missing), stale=tuple(stale))


def refuse_foreign_readme(plan: Publication) -> None:
    """Refuse to write a new card over a README.md that a person wrote."""
    if README in plan.target.sizes() and MARK.encode() not in plan.target.read(README):
        raise StoreError(
            f"{plan.target} has a {README} that latentset did not write: it would be lost. Publish "
            "a card of your own with --card FOLDER, or remove it there first. Nothing was changed"
        )


def publish(plan: Publication, report: Report = silent) -> str:
    """Do what was planned; return the address under which the store is now.

    Args:
        plan: Of this store and destination, made just before.
        report: Called with bytes that were written.

    Raises:
        StoreError: Something failed. The same command resumes.
    """
    target, total, done = plan.target, plan.missing_bytes, 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        report("publishing", done, total)

    advance(0)
    target.prepare()
    target.put(plan.data.source, plan.data.missing, advance)
    target.remove(plan.stale)
    target.put(plan.card.source, plan.card.missing, advance)
    if plan.manifest.missing:
        target.sizes()
        lost = [*target.missing(plan.data.source, plan.data.items, report)]
        if lost:
            raise StoreError(
                f"{target}: {_name(lost)} missing or altered there after it was written; does "
                "another job write there? Run the same command again: it resumes"
            )
        target.put(plan.manifest.source, plan.manifest.missing, advance)
    return target.address


def check_sound(store: Store, report: Report = silent) -> None:
    """Read and check the whole store; raises a StoreCorruptError unless it is sound."""
    findings = verify(store.location, report)
    if wrong := [*findings.problems, *findings.obstacles]:
        more = f" (and {len(wrong) - 1} more: latentset verify)" if len(wrong) > 1 else ""
        raise StoreCorruptError(f"{store.location} is not sound: {wrong[0]}{more}")


def _open(store: str | Path) -> Store:
    opened = open_store(store)
    if opened.format == "hdf5":
        zarr = opened.location.name.rpartition(".")[0] + ".zarr"
        raise StoreError(
            f"{store} is one HDF5 file: expected a store of Zarr objects, of which others can "
            f"fetch a part. Convert it first: latentset convert {store} {zarr}"
        )
    return opened


def _folder_of(store: Store) -> Folder:
    if isinstance(store.location, Folder):
        return store.location
    raise StoreError(
        f"{store.location}: expected a folder on this machine to publish from; fetch the store "
        f"first: latentset pull {store.location} FOLDER"
    )


def _open_target(destination: str | Path, public: bool) -> Destination:
    text = str(destination)
    if text.startswith("hf://"):
        return HubTarget.parse(text, public)
    location = open_location(destination)
    known = isinstance(location, Folder) or (
        isinstance(location, Bucket) and location.protocol in ("s3", "s3a", "gs", "gcs")
    )
    if isinstance(location, Web) or not known:
        raise StoreError(
            f"{text}: expected hf://datasets/ORG/NAME, s3://…, gs://… or a folder to publish to"
        )
    return LocationTarget(location)


def _check_location(location: Folder | Bucket, source: Folder) -> None:
    if location == source:
        raise StoreError(f"{location}: the destination is the store itself; name another one")
    if isinstance(location, Folder) and location.is_file():
        raise StoreError(f"{location} is a file: expected a folder, which need not exist")
    refuse_nested(location)


def _check_room(path: Path, needed: int) -> None:
    above = next(folder for folder in (path, *path.parents) if folder.exists())
    with reading(above):
        free = shutil.disk_usage(above).free
    if free < needed:
        raise StoreError(
            f"{path}: {needed:,} bytes are to be written, and {free:,} are free; make room or "
            "name another destination"
        )


def _read_card(card: Path) -> tuple[Folder, tuple[StoredObject, ...]]:
    folder = Folder(card.resolve())
    names = sorted(folder.sizes())
    if README not in names:
        raise StoreError(f"{card}: expected a card, with {README}; it is not there")
    if others := [name for name in names if not is_card_file(name)]:
        raise StoreError(
            f"{card}: {others[0]} is no part of a card: expected {', '.join(CARD_FILES)}"
        )
    with reading(card):
        return folder, tuple(describe_object(name, folder.read(name)) for name in names)


def _refuse_foreign(target: Destination, there: dict[str, int], ours: set[str]) -> None:
    foreign = [
        path for path in sorted(there) if path not in ours and not is_card_file(path)
        and PARTIAL not in path
    ]  # fmt: skip
    if foreign:
        raise StoreError(
            f"{target} holds {len(foreign)} objects that are no part of this store "
            f"({_list(foreign)}): name an empty destination, or remove them there first. Nothing "
            "was changed"
        )


def _check_published(plan: Publication) -> None:
    """Refuse a destination whose manifest is another one, or lists more than is there."""
    remove = f"remove {MANIFEST} there ({plan.target.removal(MANIFEST)})"
    if plan.manifest.missing:
        raise StoreError(
            f"{plan.target} holds another store: its {MANIFEST} differs from that of "
            f"{plan.store.location}. Name another destination; or, to replace that store, {remove} "
            "and run the same command again. Nothing was changed"
        )
    if plan.data.missing:
        raise StoreError(
            f"{plan.target}: its {MANIFEST} marks the store as complete, and "
            f"{_name(plan.data.missing)} missing or altered there, so that readers fail. To "
            f"finish it, {remove} and run the same command again. Nothing was changed"
        )


def _name(items: Sequence[StoredObject]) -> str:
    names = _list([item.path for item in items])
    return f"{names} is" if len(items) == 1 else f"{len(items)} objects ({names}) are"


def _list(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
