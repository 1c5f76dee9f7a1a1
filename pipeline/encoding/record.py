"""What a finished shard leaves behind: the facts from which a job is resumed and finished."""

from collections import Counter
from pathlib import Path
from typing import Self

from pydantic import FiniteFloat, NonNegativeInt, ValidationError, model_validator

from latentset.datasets.store.header import Frozen, Sha256
from latentset.datasets.store.manifest import ShardSummary
from latentset.datasets.store.objects import StoredObject, write_whole
from latentset.datasets.store.samples import OK


class ShardRecord(Frozen):
    """``STORE.job/FINGERPRINT/shards/NNNNNN.json``.

    The lists have one entry a sample, in the order of the plan.
    """

    fingerprint: Sha256
    """Of the settings."""
    plan_sha256: Sha256
    """Of the plan's table."""
    index: NonNegativeInt
    """Number of the shard."""
    objects: tuple[StoredObject, ...]
    """The objects written."""
    status: tuple[str, ...]
    """``ok``, or why a sample has no latents."""
    reason: tuple[str, ...]
    """The same in words."""
    rate_bpp: tuple[FiniteFloat | None, ...]
    """Bits a pixel of the encoded image; None without latents."""
    source_bytes: tuple[NonNegativeInt, ...]
    """Size of the photograph's file; 0 = could not be read."""
    source_sha256: tuple[str, ...]
    """Digest of the photograph's file; empty = could not be read."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        lists = (self.status, self.reason, self.rate_bpp, self.source_bytes, self.source_sha256)
        if len({len(items) for items in lists}) != 1:
            raise ValueError("lists differ in length")
        return self

    @property
    def summary(self) -> ShardSummary:
        """What the manifest says of the shard."""
        ok = Counter(self.status)[OK]
        return ShardSummary(
            index=self.index, samples=len(self.status), ok=ok, failed=len(self.status) - ok
        )


def record_path(job: Path, index: int) -> Path:
    """Where a shard's record lies.

    Args:
        job: The job's folder.
        index: Number of the shard.

    Returns:
        The file.
    """
    return job / "shards" / f"{index:06d}.json"


def write_record(job: Path, record: ShardRecord) -> None:
    """Write a record: with it the shard is done.

    Args:
        job: The job's folder.
        record: The record.

    Raises:
        StoreError: It cannot be written.
    """
    write_whole(record_path(job, record.index), record.model_dump_json().encode() + b"\n")


def read_record(job: Path, index: int, fingerprint: str, plan_sha256: str) -> ShardRecord | None:
    """Read a shard's record.

    Args:
        job: The job's folder.
        index: Number of the shard.
        fingerprint: Of the settings.
        plan_sha256: Of the plan's table.

    Returns:
        The record, or None if there is none that is whole and belongs to this plan.
    """
    try:
        record = ShardRecord.model_validate_json(record_path(job, index).read_bytes())
    except (OSError, ValidationError):
        return None
    expected = (fingerprint, plan_sha256, index)
    found = (record.fingerprint, record.plan_sha256, record.index)
    return record if found == expected else None
