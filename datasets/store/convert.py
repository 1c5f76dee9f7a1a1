"""Writing a store again, in the other format or other shards: `latentset convert` (docs/verify.md).

Shard by shard, so that memory does not grow with the store. The target is complete in one step, at
the end (docs/store-spec.md, 1 and 8); then both are read, decoded and compared. What a conversion
that was killed leaves behind is known by a note in ``TARGET.job/``, and the same command starts it
again; one that fails removes what it wrote to a folder.

Whoever converts into a folder holds the system's lock (``flock``) on the note: it goes with the
process, however that ends, and is known on other machines (NFS). In object storage there is no lock
and no need: nothing is swept there, objects are put whole, and two equal conversions put the same.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import (
    StoreCorruptError,
    StoreError,
    StoreFormatError,
)
from latentset.datasets.storage.access import changing, reading
from latentset.datasets.storage.atomic import PARTIAL, try_lock
from latentset.datasets.storage.location import Folder, Location
from latentset.datasets.store.contents import Contents, contents_of
from latentset.datasets.store.findings import Report, silent
from latentset.datasets.store.formats import Format
from latentset.datasets.store.hdf5.writer import encode_shard, write_hdf5
from latentset.datasets.store.header import ArrayName, Frozen, Header, Sha256
from latentset.datasets.store.manifest import MANIFEST
from latentset.datasets.store.opening import open_store
from latentset.datasets.store.store import Store
from latentset.datasets.store.target_checks import is_free, refuse_nested
from latentset.datasets.store.verify import verify
from latentset.datasets.store.zarr.reader import required_objects
from latentset.datasets.store.zarr.writer import (
    finish_store,
    metadata_objects,
    shard_objects,
    write_objects,
)

NOTE = "conversion.json"
"""Name of the note in ``TARGET.job/``."""


class Conversion(Frozen):
    """The note beside a target that is not finished: what is converted, and into what."""

    source_manifest: Sha256
    """Digest of the source's manifest."""
    format: Format
    shard_bytes: int | None = None


def convert(
    source: Store,
    target: Location,
    format: Format,
    report: Report = silent,
    *,
    shard_bytes: int | None = None,
) -> Store:
    """Write a complete store again, and prove that both are equal.

    Header, samples and fingerprint stay what they are, and so do the shards unless ``shard_bytes``
    gives them another size (of the first array, before compression); the format version becomes
    the one that this package writes. Nothing may be at the target, except what the same conversion
    left when it was stopped.

    Raises:
        StoreError: Something else is at the target, it cannot be written, or the source is not
            complete.
        StoreCorruptError: The source is damaged, or the two differ.
    """
    contents = contents_of(source, shard_bytes)
    if format == "hdf5":
        _file_path(target)
    if is_same(target, source.location):
        raise StoreError(f"{target} is the source itself: name another target")
    refuse_nested(target)
    first_rows = np.arange(source.header.layout.shards) * source.header.layout.shard_rows
    refuse_damaged(source, report)
    note = Conversion(
        source_manifest=source.manifest_sha256, format=format, shard_bytes=shard_bytes
    )
    source.reserve(source.header.arrays, first_rows)
    _leave_note(note, target)
    with _held(target), ExitStack() as stack:
        stack.enter_context(source.fetch_ahead(source.header.arrays, first_rows))
        try:
            if not _is_complete(target):
                write_contents(contents, source.fingerprint, target, format, report)
            written = open_store(target)
            differences = compare(source, written, report, shard_bytes=shard_bytes)
            if differences:
                target.remove("" if format == "hdf5" else MANIFEST)  # "": the file itself
                raise StoreCorruptError(
                    f"{target} differs from {source.location}, and was removed: "
                    + "; ".join(differences),
                    "Look at the disk or the memory of this machine, then run the same command "
                    "again",
                )
        except BaseException:
            with suppress(StoreError, OSError):
                _clear(target, contents.header)
            raise
        _remove_note(target)
    return written


def refuse_damaged(source: Store, report: Report) -> None:
    """Refuse to copy the damage of a local store; a cache compares what it fetches."""
    if isinstance(source.location, Folder):
        findings = verify(source.location, report)
        if (count := len(findings.problems) - findings.extra) > 0:
            more = f", and {count - 1} more problems" if count > 1 else ""
            raise StoreCorruptError(
                f"{source.location} is damaged: {findings.problems[0]}{more} (latentset verify)"
            )


def write_contents(
    contents: Contents, fingerprint: str, target: Location, format: Format, report: Report
) -> None:
    """Write a store, shard by shard; the target becomes complete at the end."""
    header, count = contents.header, contents.header.layout.shards

    def shards() -> Iterator[dict[ArrayName, NDArray[Any]]]:
        for index in range(count):
            report("converting", index, count)
            yield contents.read_shard(index)
        report("converting", count, count)

    if format == "hdf5":
        write_hdf5(
            _file_path(target),
            header,
            (encode_shard(header, rows) for rows in shards()),
            fingerprint=fingerprint,
            samples=contents.samples,
            summaries=contents.shards,
        )
        return
    target.sweep()
    objects = write_objects(target, metadata_objects(header))
    for index, rows in enumerate(shards()):
        objects += write_objects(target, shard_objects(header, index, rows))
    finish_store(
        target,
        header=header,
        fingerprint=fingerprint,
        samples=contents.samples,
        shards=contents.shards,
        objects=objects,
    )


def is_same(first: Location, second: Location) -> bool:
    """Whether two locations are one, by whatever path."""
    if isinstance(first, Folder) and isinstance(second, Folder):
        return first.path.resolve() == second.path.resolve()
    return first == second


def compare(
    source: Store, store: Store, report: Report = silent, *, shard_bytes: int | None = None
) -> list[str]:
    """Compare two complete stores value by value; lines about what differs.

    Format, compression and format version may differ; with ``shard_bytes``, the second is to be
    divided into shards of this size.
    """
    expected, found = contents_of(source, shard_bytes), contents_of(store)
    if expected.header != found.header:
        return ["the headers differ"]
    differences = []
    if source.fingerprint != store.fingerprint:
        differences.append("the fingerprints differ")
    if not expected.samples.equals(found.samples):
        differences.append("the samples tables differ")
    if expected.shards != found.shards:
        differences.append("the shards' counts differ")
    shards = expected.header.layout.shards
    for index in range(shards):
        report("comparing", index, shards)
        theirs = found.read_shard(index)
        for name, rows in expected.read_shard(index).items():
            same_type, is_float = rows.dtype == theirs[name].dtype, rows.dtype.kind == "f"
            if not same_type or not np.array_equal(rows, theirs[name], equal_nan=is_float):
                differences.append(f"{name} differs in shard {index}")
    report("comparing", shards, shards)
    return differences


def _file_path(target: Location) -> Path:
    if not isinstance(target, Folder):
        raise StoreError(
            f"{target}: HDF5 is written to a file system only; name a file, and copy it afterwards"
        )
    return target.path


def _leave_note(note: Conversion, target: Location) -> None:
    """Leave a note beside the target, or find the note of the same conversion."""
    job = target.beside(".job")
    content = note.model_dump_json().encode() + b"\n"
    if job.size(NOTE) is None:
        others = sorted(path for path in job.sizes() or {} if PARTIAL not in path)
        if others or not is_free(target):
            what = f"{job} holds {others[0]}" if others else f"{target} exists"
            raise StoreError(
                f"{what}: nothing was changed there. A store is converted into a new name only, or "
                "into what the same conversion started"
            )
        job.create(NOTE, content)
    with reading(f"{job}/{NOTE}"):  # missing: another has just finished
        found = job.read(NOTE)
    if found != content:
        raise StoreError(
            f"{target} is what another conversion started, of another store or into another "
            f"format: remove it and {job} first, or name another target"
        )


@contextmanager
def _held(target: Location) -> Iterator[None]:
    job = target.beside(".job")
    if not isinstance(job, Folder):
        yield
        return
    path = job.path / NOTE
    refused = StoreError(
        f"another latentset convert is at work on {target}: wait until it has finished, then look "
        "at what it made"
    )
    with changing("write", path):
        try:
            file = path.open("r+b")  # NFS gives the lock only to those who may write
        except FileNotFoundError as error:
            raise refused from error
    with file:
        # The note may have been there when the file was opened, and its job have finished since.
        current = try_lock(file) and path.exists()
        if not current or not os.path.samestat(path.stat(), os.fstat(file.fileno())):
            raise refused
        yield


def _is_complete(target: Location) -> bool:
    try:
        return open_store(target, allow_incomplete=True).manifest is not None
    except (StoreFormatError, StoreCorruptError):
        return False


def _clear(target: Location, header: Header) -> None:
    """Remove what this conversion wrote to a folder, unless it is complete."""
    if not isinstance(target, Folder) or _is_complete(target):
        return
    if not target.is_file():
        ours = {*required_objects(header), MANIFEST}
        for path in target.sizes():
            if path in ours or PARTIAL in path:
                target.remove(path)
        for folder, _, _ in os.walk(target.path, topdown=False):
            with suppress(OSError):  # not empty: not ours
                Path(folder).rmdir()
    _remove_note(target)


def _remove_note(target: Location) -> None:
    job = target.beside(".job")
    job.remove(NOTE)
    if isinstance(job, Folder):
        with suppress(OSError):  # not empty: not ours
            job.path.rmdir()
