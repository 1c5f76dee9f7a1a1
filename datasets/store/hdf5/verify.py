"""Checking a store that is one HDF5 file."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import (
    StoreCorruptError,
    StoreError,
    StoreFormatError,
    StoreUnreachableError,
)
from latentset.datasets.storage.access import unreachable
from latentset.datasets.storage.location import Folder
from latentset.datasets.store.consistency import Placement, check_values
from latentset.datasets.store.digests import Digest
from latentset.datasets.store.findings import Findings, Report, in_parallel, name_rows
from latentset.datasets.store.hdf5.chunks import ChunkedDataset
from latentset.datasets.store.hdf5.metadata import (
    MANIFEST_ATTRIBUTE,
    USER_BLOCK,
    digest_after_user_block,
    read_user_block,
)
from latentset.datasets.store.hdf5.reader import Hdf5Store, open_file, read_table, read_texts
from latentset.datasets.store.hdf5.table import find_columns
from latentset.datasets.store.header import ATTRIBUTE, ArrayName
from latentset.datasets.store.manifest import Manifest
from latentset.datasets.store.samples import SAMPLES_GROUP, samples_schema


def verify_hdf5(location: Folder, findings: Findings, report: Report) -> None:
    """Fill ``findings``; StoreError if it is no store, of a known version, that can be read."""
    path = location.path
    try:
        expected = read_user_block(path)
        findings.bytes = total = path.stat().st_size
        found = digest_after_user_block(path, lambda done: report("digest", done, total))
        if found != expected:
            findings.add(f"the file differs from the sha256 in its first {USER_BLOCK} bytes")
        findings.header, findings.manifest = header, manifest = read_texts(path)
    except (StoreFormatError, StoreUnreachableError):
        raise
    except StoreError as error:
        findings.add(error)
        findings.notes.append("with this problem nothing else in the file could be read")
        return
    except OSError as error:
        raise unreachable(path, error) from error
    with findings.collecting():
        findings.samples = read_table(path, header, manifest)
    placement = findings.check_samples()
    store = Hdf5Store(location, header, samples_schema(header).empty_table(), manifest)
    with findings.collecting():
        _check_objects(store, manifest, findings)
    datasets: dict[ArrayName, ChunkedDataset] = {}
    for name in header.arrays:
        with findings.collecting():
            datasets[name] = store.dataset(name)
    digests = _check_shards(store, datasets, placement, findings, report)
    for name, digest in digests.items():
        if digest.describe(name) != manifest.listed[name]:
            findings.add(f"{name} differs from its sha256 in the manifest")


def _check_objects(store: Hdf5Store, manifest: Manifest, findings: Findings) -> None:
    """The columns' digests, and that the file holds nothing else."""
    path, listed = store.path, manifest.listed
    findings.objects = len(listed)
    with open_file(path) as file:
        extra = [
            *(f"attribute {name}" for name in file.attrs.keys() - {ATTRIBUTE, MANIFEST_ATTRIBUTE}),
            *(file.keys() - {SAMPLES_GROUP, *store.header.arrays}),
            *(
                f"{SAMPLES_GROUP}/{name}"
                for name in file[SAMPLES_GROUP].keys() - set(samples_schema(store.header).names)
            ),
        ]
        for name in sorted(extra):
            findings.add(f"{name} is not listed in the manifest")
        for name, dataset in find_columns(file, store.header, path):
            digest = Digest()
            for k in range(dataset.chunks):
                digest.update(dataset.stored_chunk(k))
            described = digest.describe(f"{SAMPLES_GROUP}/{name}")
            if described != listed[described.path]:
                findings.add(f"{described.path} differs from its sha256 in the manifest")


def _check_shards(
    store: Hdf5Store,
    datasets: dict[ArrayName, ChunkedDataset],
    placement: Placement | None,
    findings: Findings,
    report: Report,
) -> dict[ArrayName, Digest]:
    shards = store.header.layout.shards
    digests = {name: Digest() for name in datasets}

    def check(index: int) -> tuple[list[str], dict[ArrayName, list[bytes]]]:
        problems: list[str] = []
        stored: dict[ArrayName, list[bytes]] = {}
        rows: dict[ArrayName, NDArray[Any]] = {}
        for name, dataset in datasets.items():
            count = dataset.shape[1] // shards
            chunks = range(index * count // dataset.chunk, (index + 1) * count // dataset.chunk)
            found = list(_read_chunks(name, dataset, chunks, placement, problems))
            stored[name] = [content for content, _ in found]
            values = [value for _, value in found if value is not None]
            if len(values) == len(chunks):
                rows[name] = np.concatenate(values, axis=1).T
        problems += check_values(store.header, placement, index, rows)
        return problems, stored

    report("checking", 0, shards)
    for done, (problems, stored) in enumerate(in_parallel(check, range(shards))):
        findings.add(*problems)
        for name, pieces in stored.items():
            for piece in pieces:
                digests[name].update(piece)
        report("checking", done + 1, shards)
    return digests


def _read_chunks(
    name: ArrayName,
    dataset: ChunkedDataset,
    chunks: range,
    placement: Placement | None,
    problems: list[str],
) -> Iterator[tuple[bytes, NDArray[Any] | None]]:
    """Each chunk as stored and decoded; None where it cannot be."""
    for k in chunks:
        content = b""
        try:
            content = dataset.stored_chunk(k)
            yield content, dataset.decode(content, k)
        except StoreCorruptError as error:
            rows = name_rows(name, k * dataset.chunk, (k + 1) * dataset.chunk, placement)
            problems.append(f"{rows}: {error}")
            yield content, None
