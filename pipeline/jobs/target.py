"""One store that a job is to make: what lies there already, and what is to lie there."""

from collections.abc import Iterator
from contextlib import suppress
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
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.formats import Format, choose_format
from latentset.datasets.store.hdf5.reader import Hdf5Store
from latentset.datasets.store.target_checks import is_free, refuse_nested
from latentset.pipeline.jobs.plan import PlanDocument
from latentset.pipeline.jobs.settings import Settings, refuse_changes, settings_of


@dataclass(frozen=True)
class Target:
    """A store to make, with one codec."""

    store: Location
    """Where it is to lie."""
    codec: str
    """Name or path of the codec."""
    settings: Settings
    """Everything that decides its bytes."""
    before: Store | None
    """What lies there: nothing, a store that was begun, or one that is complete."""

    @property
    def is_complete(self) -> bool:
        """The store is there, with its manifest."""
        return self.before is not None and self.before.manifest is not None

    @property
    def lock_at(self) -> Location:
        """Where a job says that it is at work on the store."""
        return self.store.beside(".job") / "lock"

    @property
    def job(self) -> Location:
        """Where the job's plan and records lie."""
        return self.store.beside(".job") / self.settings.fingerprint

    @property
    def objects(self) -> Location:
        """Where the objects that tasks write lie: HDF5's parts wait beside the store."""
        return self.store if self.settings.container == "zarr" else self.job


def choose_container(store: Location, wanted: Format | None) -> Format:
    """Choose a store's format by what was asked for, or by its name.

    Args:
        store: Where it is to lie.
        wanted: What was asked for; None goes by the name.

    Returns:
        The format.

    Raises:
        JobError: HDF5 is wanted where it cannot be written.
    """
    container = choose_format(store, wanted)
    if container == "hdf5" and not isinstance(store, Folder):
        raise JobError(
            f"{store}: HDF5 is written to a file system only; leave --format hdf5 out, or name a "
            "file, and copy it when it is done"
        )
    return container


def look_at(store: Location) -> Store | None:
    """See what lies at a target.

    Args:
        store: Where a store is to lie.

    Returns:
        None if nothing does, or the store, complete or not.

    Raises:
        StoreError: Something else lies there, a damaged store, or the location cannot be written.
    """
    try:
        return open_store(store)
    except StoreIncompleteError:
        return open_store(store, allow_incomplete=True)
    except StoreFormatError as error:
        if is_free(store):
            return None
        raise StoreError(
            f"{store} exists and is no store that this version can go on with; nothing was "
            f"changed there. Name another folder. ({error})"
        ) from error
    except StoreCorruptError as error:
        raise StoreCorruptError(
            error.what,
            f"To encode it anew with this command, remove {store.name} and {store.name}.job first",
        ) from error


def make_target(store: Path | str | Location, codec: str, settings: Settings) -> Target:
    """Look at a target, and refuse one that was begun otherwise.

    Args:
        store: Where the store is to lie.
        codec: Name or path of the codec.
        settings: What is to lie there.

    Returns:
        The target.

    Raises:
        StoreError: Something else lies there.
        SettingsChangedError: It was begun with other settings.
    """
    location = open_location(store)
    refuse_nested(location)
    before = look_at(location)
    if before is None:
        for found in _begun(location):
            refuse_changes(f"{location} (in {location.name}.job)", found, settings)
    else:
        found = settings_of(before.header, "hdf5" if isinstance(before, Hdf5Store) else "zarr")
        if before.manifest is not None:  # what is finished may be of an earlier format version
            found = found.model_copy(update={"format_version": settings.format_version})
        refuse_changes(str(location), found, settings)
    return Target(location, codec, settings, before)


def _begun(store: Location) -> Iterator[Settings]:
    """The settings of jobs that were begun and have left nothing yet where the store is to lie."""
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
