"""Checking a whole store: `latentset verify` (docs/verify.md).

Everything is read once and nothing is believed: digests, checksums of chunks, rows, values. All
problems are reported. Memory holds a few shards at a time.
"""

from pathlib import Path

from latentset.datasets.errors import StoreError
from latentset.datasets.storage.location import Folder, Location, open_location
from latentset.datasets.store.findings import Findings, Report, silent
from latentset.datasets.store.hdf5.verify import verify_hdf5
from latentset.datasets.store.zarr.verify import verify_zarr


def verify(where: Path | str | Location, report: Report = silent) -> Findings:
    """Check a store in a folder, an HDF5 file or at a URL; findings also if nothing was read."""
    findings = Findings(str(where))
    try:
        location = open_location(where)
        findings.where = str(location)
        if isinstance(location, Folder) and location.is_file():
            verify_hdf5(location, findings, report)
        else:
            verify_zarr(location, findings, report)
    except StoreError as error:
        findings.block(error)
    return findings
