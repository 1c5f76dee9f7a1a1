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
from latentset.datasets.storage.access import reading
from latentset.datasets.storage.location import Folder
from latentset.datasets.store.consistency import Placement, check_values
from latentset.datasets.store.digests import Digest
from latentset.datasets.store.findings import (
    Findings,
    Report,
    check_shards,
    divide_shard,
    name_rows,
)
from latentset.datasets.store.hdf5.chunks import ChunkedDataset
from latentset.datasets.store.hdf5.metadata import (
    MANIFEST_ATTRIBUTE,
    digest_after_user_block,
    read_user_block,
)
from latentset.datasets.store.hdf5.object_headers import USER_BLOCK
from latentset.datasets.store.hdf5.reader import Hdf5Store, open_file, read_table, read_texts
from latentset.datasets.store.hdf5.table import find_columns, open_group
from latentset.datasets.store.header import ATTRIBUTE, ArrayName
from latentset.datasets.store.samples import SAMPLES_GROUP, samples_schema


def verify_hdf5(location: Folder, findings: Findings, report: Report) -> None:
    """Fill ``findings``; StoreError if it is no store, of a known version, that can be read."""
    path = location.path
    try:
        expected = read_user_block(path)
        with reading(path):
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
    with findings.collecting():
        findings.samples = read_table(path, header)
    placement = findings.check_samples()
    store = Hdf5Store(location, header, samples_schema(header).empty_table(), manifest)
    digests: dict[str, Digest] = {}
    with findings.collecting():
        _check_columns(store, findings, digests)
    _check_shards(store, placement, findings, digests, report)
    findings.objects = len(manifest.objects)
    for name, digest in digests.items():
        if digest.describe(name) != manifest.listed[name]:
            findings.add(f"{name} differs from its sha256 in the manifest")


def _check_columns(store: Hdf5Store, findings: Findings, digests: dict[str, Digest]) -> None:
    """Digest the columns, and check that the file holds nothing else than a store."""
    with open_file(store.path) as file:
        group = open_group(file, store.path)
        extra = [
            *(f"attribute {name}" for name in file.attrs.keys() - {ATTRIBUTE, MANIFEST_ATTRIBUTE}),
            *(file.keys() - {SAMPLES_GROUP, *store.header.arrays}),
            *(
                f"{SAMPLES_GROUP}/{name}"
                for name in group.keys() - set(samples_schema(store.header).names)
            ),
        ]
        findings.add(*(f"{name} is not listed in the manifest" for name in sorted(extra)))
        for name, dataset in find_columns(file, store.header, store.path):
            digest = Digest()
            for k in range(dataset.chunks):
                digest.update(dataset.stored_chunk(k))
            digests[f"{SAMPLES_GROUP}/{name}"] = digest


def _check_shards(
    store: Hdf5Store,
    placement: Placement | None,
    findings: Findings,
    digests: dict[str, Digest],
    report: Report,
) -> None:
    shards = store.header.layout.shards
    datasets: dict[ArrayName, ChunkedDataset] = {}
    for name in store.header.arrays:
        with findings.collecting():
            datasets[name] = store.dataset(name)
            digests[name] = Digest()

    def check(index: int) -> tuple[list[str], dict[ArrayName, list[bytes]]]:
        problems: list[str] = []
        stored: dict[ArrayName, list[bytes]] = {name: [] for name in datasets}
        for part in divide_shard(store.header):
            rows: dict[ArrayName, NDArray[Any]] = {}
            for name in part.names:
                if name not in datasets:
                    continue
                dataset = datasets[name]
                first = index * (dataset.shape[1] // shards) + part.first
                chunks = range(first // dataset.chunk, (first + part.count) // dataset.chunk)
                found = list(_read_chunks(name, dataset, chunks, placement, problems))
                stored[name] += [content for content, _ in found]
                values = [value for _, value in found if value is not None]
                if len(values) == len(chunks):
                    rows[name] = np.concatenate(values, axis=1).T
            problems += check_values(store.header, placement, index, part.first, rows)
        return problems, stored

    for problems, stored in check_shards(check, range(shards), store.header, report):
        findings.add(*problems)
        for name, pieces in stored.items():
            for piece in pieces:
                digests[name].update(piece)


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
