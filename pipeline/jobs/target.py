"""One store that a job is to make: what is at its location, and what is to be."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from latentset.datasets.errors import (
    JobError,
    StoreCorruptError,
    StoreError,
    StoreFormatError,
    StoreIncompleteError,
)
from latentset.datasets.storage.location import Folder, Location, open_location
from latentset.datasets.storage.lock import Lease, hold
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.formats import Format, choose_format
from latentset.datasets.store.target_checks import is_free, refuse_nested
from latentset.pipeline.jobs.plan import Plan, PlanDocument
from latentset.pipeline.jobs.settings import Settings, refuse_changes, settings_of
from latentset.pipeline.jobs.shard import ShardTarget


@dataclass(frozen=True)
class Target:
    """A store to make, with one codec."""

    store: Location
    codec: str
    """Name or path."""
    settings: Settings
    before: Store | None
    """What is there: nothing, a store that was started, or one that is complete."""

    @property
    def is_complete(self) -> bool:
        """The store is there, with its manifest."""
        return self.before is not None and self.before.manifest is not None

    @property
    def is_finished(self) -> bool:
        """It is complete, and a kill has not left the Zarr store of an HDF5 file behind."""
        return self.is_complete and not (self.is_hdf5 and Path(str(self.objects)).exists())

    @property
    def job(self) -> Location:
        """The folder of the job's plan and records."""
        return self.store.beside(".job") / self.settings.fingerprint

    @property
    def is_hdf5(self) -> bool:
        """The store becomes one HDF5 file, converted from Zarr at the end."""
        return self.settings.container == "hdf5"

    @property
    def objects(self) -> Location:
        """The Zarr store that tasks write: the store itself, or what HDF5 is converted from."""
        return self.job / "store.zarr" if self.is_hdf5 else self.store

    def for_tasks(self, plan: Plan) -> ShardTarget:
        """What tasks need to know of it."""
        return ShardTarget(self.objects, plan.job, plan.table_sha256, self.codec)


def choose_container(store: Location, wanted: Format | None) -> Format:
    """Choose a store's format, by its name if None is wanted; HDF5 needs a file system."""
    container = choose_format(store, wanted)
    if container == "hdf5" and not isinstance(store, Folder):
        raise JobError(
            f"{store}: HDF5 is written to a file system only; leave --format hdf5 out, or name a "
            "file, and copy it when it is done"
        )
    return container


def look_at(store: Path | str | Location, codec: str, settings: Settings) -> Target:
    """Look at a target; StoreError if something else is there or the store is damaged."""
    location = open_location(store)
    refuse_nested(location)
    if isinstance(job := location.beside(".job"), Folder) and job.path.is_file():
        raise StoreError(
            f"{job} is a file, but this is where the job keeps its plan: rename it, or name "
            "another STORE"
        )
    before = _open(location)
    if before is None:
        for found in _started(location):
            refuse_changes(f"{location} (in {location.name}.job)", found, settings)
    else:
        found = settings_of(before.header, "hdf5" if Path(str(location)).is_file() else "zarr")
        if before.manifest is not None:  # what is finished may be of an earlier format version
            found = found.model_copy(update={"format_version": settings.format_version})
        refuse_changes(str(location), found, settings)
    return Target(location, codec, settings, before)


def lock_targets(
    targets: Sequence[Target], say: Callable[[str], None], stack: ExitStack
) -> tuple[list[Target], tuple[Lease, ...]]:
    """Lock stores, and look again: another job may have worked on one until its lock was free."""
    # In one order for all jobs, so that two with the same stores do not refuse each other.
    ordered = sorted(targets, key=lambda target: str(target.store))
    leases = tuple(
        stack.enter_context(hold(target.store.beside(".job") / "lock", say)) for target in ordered
    )
    locked = [look_at(t.store, t.codec, t.settings) for t in targets]
    for target in locked:
        if target.is_complete and not target.is_finished:
            discard(target.objects)
    return locked, leases


def discard(*locations: Location) -> None:
    """Remove files and folders of a job in a file system, each with its own ``.job`` folder."""
    for location in locations:
        for path in (Path(str(location)), Path(str(location.beside(".job")))):
            if path.is_file():
                path.unlink()
            shutil.rmtree(path, ignore_errors=True)


def _open(store: Location) -> Store | None:
    """Open what is at a target, complete or not; None if nothing is."""
    try:
        return open_store(store)
    except StoreIncompleteError:
        return open_store(store, allow_incomplete=True)
    except StoreFormatError as error:
        if is_free(store):
            return None
        raise StoreError(
            f"{store} exists and is no store that this version can resume; nothing was "
            f"changed there. Name another folder. ({error})"
        ) from error
    except StoreCorruptError as error:
        raise StoreCorruptError(
            error.what,
            f"To encode it anew with this command, remove {store.name} and {store.name}.job first",
        ) from error


def _started(store: Location) -> Iterator[Settings]:
    """The settings of jobs that were started and have not yet made anything at the target."""
    job = store.beside(".job")
    for path in job.sizes() or {}:
        fingerprint, _, rest = path.partition("/")
        if rest != "plan.json":
            continue
        with suppress(OSError, ValidationError):
            header = PlanDocument.model_validate_json(job.read(path)).header
            for settings in (settings_of(header, container) for container in get_args(Format)):
                if settings.fingerprint == fingerprint:
                    yield settings
