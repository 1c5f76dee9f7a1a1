"""Checking a store of Zarr objects."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import StoreError, StoreFormatError
from latentset.datasets.storage.atomic import PARTIAL
from latentset.datasets.storage.folder import is_left_by_system
from latentset.datasets.storage.location import Location, read_if_there
from latentset.datasets.store.arrays import array_form
from latentset.datasets.store.consistency import Placement, check_values
from latentset.datasets.store.digests import StoredObject, sha256_of, stream_object
from latentset.datasets.store.findings import (
    Findings,
    Report,
    check_shards,
    divide_shard,
    name_rows,
)
from latentset.datasets.store.header import ArrayName, Header
from latentset.datasets.store.manifest import MANIFEST, Manifest, is_card_file, parse_manifest
from latentset.datasets.store.samples import SAMPLES, parse_samples
from latentset.datasets.store.zarr.metadata import check_array_metadata, check_shard_bytes
from latentset.datasets.store.zarr.reader import (
    check_size,
    manifest_problems,
    most_bytes,
    read_header,
)
from latentset.datasets.store.zarr.shards import ShardedArray

Problems = list[str | StoreError]
"""What is wrong with some objects, and which cannot be read."""


def verify_zarr(location: Location, findings: Findings, report: Report) -> None:
    """Fill ``findings``; StoreError if there is no store, of a known version, that can be read."""
    no_header: StoreFormatError | None = None
    try:
        findings.header = read_header(location)
    except StoreFormatError as error:
        no_header = error
    content = read_if_there(location, MANIFEST)
    if content is None:
        if no_header is not None:
            raise no_header
        findings.is_complete = False
        command = findings.header.command if findings.header else "latentset encode"
        findings.block(
            f"{MANIFEST} is missing: the job that makes the store was interrupted or is still "
            f"running: run the same {command} again. If this is a copy, fetch it again"
        )
        return
    findings.objects, findings.bytes = 1, len(content)
    sizes = location.sizes()
    try:
        findings.manifest = parse_manifest(content, findings.where)
    except StoreError as error:
        if no_header is not None:
            raise no_header from error  # both are another's, or of a later version
        findings.add(error)
        findings.notes.append("without a valid manifest nothing else could be compared")
        return
    if no_header is not None:
        findings.add(no_header)
    if findings.manifest.sha256 is None:
        findings.notes.append("format version 0.1: the manifest has no digest of its own")
    _check_listing(findings, findings.manifest, sizes)
    shards, others = _divide(findings.header, findings.manifest)
    contents = {}
    for item in others:
        found: Problems = []
        if item.bytes > most_bytes(item.path):
            findings.add(f"{item.path}: {item.bytes:,} bytes are more than any store needs")
            continue
        content = _read_checked(location, item, sizes, found)
        findings.add(*found)
        if content is not None and not found:
            contents[item.path] = content
    _check_metadata(findings, contents)
    placement = findings.check_samples()
    header = findings.header
    findings.objects += len(findings.manifest.objects)
    findings.bytes += sum(item.bytes for item in findings.manifest.objects)
    if header is None:
        return

    def check(index: int) -> Problems:
        problems: Problems = []
        read: dict[ArrayName, bytes] = {}
        for name, item in shards[index].items():
            try:
                check_shard_bytes(header, name, index, item.bytes, findings.where)
            except StoreError as error:
                problems.append(error)
                continue
            content = _read_checked(location, item, sizes, problems)
            if content is not None:
                read[name] = content
        problems += _check_shard(header, placement, index, read)
        return problems

    for problems in check_shards(check, sorted(shards), header, report):
        findings.add(*problems)


def _check_listing(findings: Findings, manifest: Manifest, sizes: dict[str, int] | None) -> None:
    """Objects that are missing from the manifest, or extra."""
    header = findings.header
    if header is not None:
        findings.add(*manifest_problems(header, manifest))
        if header.format_version != manifest.format_version:
            findings.add(
                f"{MANIFEST}: format_version: expected {header.format_version}, as the header "
                f"has, got {manifest.format_version}"
            )
    if sizes is None:
        findings.notes.append(
            "this location cannot list what it holds: extra objects are not found"
        )
        return
    extra = sizes.keys() - manifest.listed.keys() - {MANIFEST}
    card = {path for path in extra if is_card_file(path)}
    if card:
        names = ", ".join(sorted({path.partition("/")[0] for path in card}))
        findings.notes.append(f"{names}: of the store's card, which {MANIFEST} does not cover")
    foreign = {path for path in extra - card if is_left_by_system(path)}
    if foreign:
        findings.notes.append(
            f"{', '.join(sorted(foreign))}: left by the operating system, no part of the store; "
            "it can be deleted"
        )
    others = sorted(extra - card - foreign)
    for path in others:
        left = " (left behind by a writer that was killed)" if PARTIAL in path else ""
        findings.add(f"{path} is not listed in {MANIFEST}{left}")
    findings.extra = len(others)


def _divide(
    header: Header | None, manifest: Manifest
) -> tuple[dict[int, dict[ArrayName, StoredObject]], list[StoredObject]]:
    """The objects of each shard, and all others."""
    listed = manifest.listed
    shards: dict[int, dict[ArrayName, StoredObject]] = {}
    for index in range(len(manifest.shards)):
        for name in header.arrays if header else ():
            item = listed.pop(f"{name}/c/{index}/0", None)
            if item is not None:
                shards.setdefault(index, {})[name] = item
    return shards, list(listed.values())


def _read_checked(
    location: Location, item: StoredObject, sizes: dict[str, int] | None, problems: Problems
) -> bytes | None:
    """Read an object and compare it with the manifest; its bytes, also where they differ."""
    try:
        if sizes is not None:
            check_size(location, item, sizes.get(item.path))
        content = b"".join(stream_object(location, item))
    except StoreError as error:
        problems.append(error)
        return None
    if sha256_of(content) != item.sha256:
        problems.append(f"{item.path} differs from its sha256 in {MANIFEST}")
    return content


def _check_metadata(findings: Findings, contents: dict[str, bytes]) -> None:
    """Check the arrays' metadata and the samples table."""
    header = findings.header
    if header is None:
        return
    for name in header.arrays:
        path = f"{name}/zarr.json"
        with findings.collecting():
            if path in contents:
                check_array_metadata(contents[path], header, name, findings.where)
    with findings.collecting():
        if SAMPLES in contents:
            findings.samples = parse_samples(contents[SAMPLES], header, findings.where)


class _InMemory:
    """One object that was read."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read_part(self, path: str, first: int, size: int) -> bytes:
        return self._content[first : first + size]


def _check_shard(
    header: Header,
    placement: Placement | None,
    index: int,
    contents: Mapping[ArrayName, bytes],
) -> Iterator[str]:
    arrays = {}
    for name, content in contents.items():
        path = f"{name}/c/{index}/0"
        item = StoredObject(path=path, bytes=len(content), sha256=sha256_of(content))
        arrays[name] = ShardedArray(_InMemory(content), header, name, {path: item})
    for part in divide_shard(header):
        rows: dict[ArrayName, NDArray[Any]] = {}
        for name in part.names:
            if name not in arrays:
                continue
            form = array_form(header, name)
            values = np.empty((form.channels, part.count), form.dtype)
            bad = False
            for at in range(0, part.count, form.chunk_rows):
                start = index * form.shard_rows + part.first + at
                try:
                    arrays[name].read_into(values[:, at : at + form.chunk_rows], start)
                except (ValueError, RuntimeError, OSError) as error:
                    bad = True
                    where = name_rows(name, start, start + form.chunk_rows, placement)
                    yield f"{where} cannot be decoded: {getattr(error, 'what', error)}"
            if not bad:
                rows[name] = values.T
        yield from check_values(header, placement, index, part.first, rows)
