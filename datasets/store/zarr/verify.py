"""Checking a store of Zarr objects."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import MemoryStore

from latentset.datasets.errors import StoreError, StoreFormatError
from latentset.datasets.storage.atomic import PARTIAL
from latentset.datasets.storage.location import Location, read_if_there
from latentset.datasets.store.arrays import array_form
from latentset.datasets.store.consistency import Placement, check_values
from latentset.datasets.store.digests import StoredObject, sha256_of
from latentset.datasets.store.findings import Findings, Report, check_shards, name_rows
from latentset.datasets.store.header import ArrayName, Header
from latentset.datasets.store.manifest import MANIFEST, Manifest, parse_manifest
from latentset.datasets.store.samples import SAMPLES, parse_samples
from latentset.datasets.store.zarr.metadata import check_array_metadata, least_shard_bytes
from latentset.datasets.store.zarr.reader import check_size, manifest_problems, read_header
from latentset.datasets.store.zarr.writer import metadata_objects

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
        content = _read_checked(location, item, sizes, found)
        findings.add(*found)
        if content is not None and not found:
            contents[item.path] = content
    metadata = _check_metadata(findings, contents)
    placement = findings.check_samples()

    def check(index: int) -> Problems:
        problems: Problems = []
        read: dict[ArrayName, bytes] = {}
        for name, item in shards[index].items():
            content = _read_checked(location, item, sizes, problems)
            if content is not None:
                read[name] = content
        if findings.header is not None:
            problems += _check_shard(findings.header, metadata, placement, index, read)
        return problems

    for problems in check_shards(check, sorted(shards), report):
        findings.add(*problems)
    findings.objects += len(findings.manifest.objects)
    findings.bytes += sum(item.bytes for item in findings.manifest.objects)


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
    for path in sorted(sizes.keys() - manifest.listed.keys() - {MANIFEST}):
        left = " (left behind by a writer that was killed)" if PARTIAL in path else ""
        findings.add(f"{path} is not listed in {MANIFEST}{left}")


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
        size = location.size(item.path) if sizes is None else sizes.get(item.path)
        check_size(location, item, size)
        content = read_if_there(location, item.path)
        check_size(location, item, None if content is None else len(content))
    except StoreError as error:
        problems.append(error)
        return None
    if content is not None and sha256_of(content) != item.sha256:
        problems.append(f"{item.path} differs from its sha256 in {MANIFEST}")
    return content


def _check_metadata(findings: Findings, contents: dict[str, bytes]) -> dict[str, bytes]:
    """Check the arrays' metadata and the samples table; the metadata to decode the shards by."""
    header = findings.header
    if header is None:
        return {}
    metadata = metadata_objects(header)
    for name in header.arrays:
        path = f"{name}/zarr.json"
        with findings.collecting():
            if path in contents:
                check_array_metadata(contents[path], header, name, findings.where)
                metadata[path] = contents[path]
    with findings.collecting():
        if SAMPLES in contents:
            findings.samples = parse_samples(contents[SAMPLES], header, findings.where)
    return metadata


def _check_shard(
    header: Header,
    metadata: Mapping[str, bytes],
    placement: Placement | None,
    index: int,
    contents: Mapping[ArrayName, bytes],
) -> Iterator[str]:
    rows: dict[ArrayName, NDArray[Any]] = {}
    for name, content in contents.items():
        path = f"{name}/c/{index}/0"
        if len(content) < least_shard_bytes(header, name):
            yield f"{path}: expected room for the index of the header's layout"
            continue
        key, make = f"{name}/zarr.json", default_buffer_prototype().buffer.from_bytes
        objects: dict[str, Buffer] = {key: make(metadata[key]), path: make(content)}
        form = array_form(header, name)
        first, stop = index * form.shard_rows, (index + 1) * form.shard_rows
        try:
            array = zarr.open_array(MemoryStore(objects), path=name, mode="r", zarr_format=3)
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            yield f"{key}: zarr cannot open it: {error}"
            continue
        try:
            rows[name] = np.asarray(array[first:stop])
        except (ValueError, RuntimeError, OSError):
            for start in range(first, stop, form.chunk_rows):
                try:
                    np.asarray(array[start : start + form.chunk_rows])
                except (ValueError, RuntimeError, OSError) as error:
                    bad = name_rows(name, start, start + form.chunk_rows, placement)
                    yield f"{bad} cannot be decoded: {error}"
    yield from check_values(header, placement, index, rows)
