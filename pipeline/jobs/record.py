"""What a finished shard leaves behind: the facts from which a job is resumed and finished."""

from collections import Counter
from typing import Annotated, Self

from pydantic import (
    AllowInfNan,
    ConfigDict,
    FiniteFloat,
    NonNegativeInt,
    ValidationError,
    model_validator,
)

from latentset.datasets.storage.location import Location
from latentset.datasets.store.digests import StoredObject
from latentset.datasets.store.header import Frozen, Sha256
from latentset.datasets.store.manifest import ShardSummary
from latentset.datasets.store.samples import OK

Measure = Annotated[float, AllowInfNan(True)] | None
"""A float that may be infinite, or nothing."""


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
    status: tuple[str, ...]
    """``ok``, or why a sample has no latents."""
    reason: tuple[str, ...]
    rate_bpp: tuple[FiniteFloat | None, ...]
    """Bits a pixel of the encoded image; None without latents."""
    psnr_db: tuple[Measure, ...] = ()
    """Of decoded images against the originals, dB; infinite where they are equal, None where it
    was not measured. Empty in a store of anything else, as is ``ms_ssim``."""
    ms_ssim: tuple[Measure, ...] = ()
    source_bytes: tuple[NonNegativeInt, ...]
    """Size of the image's file; 0 = could not be read."""
    source_sha256: tuple[str, ...]
    """Digest of the image's file; empty = could not be read."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    @model_validator(mode="after")
    def _check(self) -> Self:
        lists = (self.status, self.reason, self.rate_bpp, self.source_bytes, self.source_sha256)
        measures = {len(items) for items in (self.psnr_db, self.ms_ssim)} - {0}
        if len({len(items) for items in lists} | measures) != 1:
            raise ValueError("lists differ in length")
        return self

    @property
    def summary(self) -> ShardSummary:
        """The shard's entry in the manifest."""
        ok = Counter(self.status)[OK]
        return ShardSummary(
            index=self.index, samples=len(self.status), ok=ok, failed=len(self.status) - ok
        )


def record_path(index: int) -> str:
    """Path of a shard's record below the job's folder."""
    return f"shards/{index:06d}.json"


def write_record(job: Location, record: ShardRecord) -> None:
    """Write a record: with it the shard is done."""
    job.write(record_path(record.index), record.model_dump_json().encode() + b"\n")


def read_record(
    job: Location, index: int, fingerprint: str, plan_sha256: str
) -> ShardRecord | None:
    """Read a shard's record; None if none is there that is whole and belongs to this plan."""
    try:
        record = ShardRecord.model_validate_json(job.read(record_path(index)))
    except (OSError, ValidationError):
        return None
    expected = (fingerprint, plan_sha256, index)
    found = (record.fingerprint, record.plan_sha256, record.index)
    return record if found == expected else None
