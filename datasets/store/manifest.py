"""The manifest: what a store consists of, and that it is complete (docs/store-spec.md, 6)."""

import re
from typing import Annotated, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import FailFast, Field, ValidationError, model_validator

from latentset.datasets.errors import StoreCorruptError, describe_invalid, expect
from latentset.datasets.limits import MAX_SHARDS_READ, Count, ShardIndex
from latentset.datasets.store.digests import StoredObject, sha256_of
from latentset.datasets.store.header import FormatVersion, Frozen, Sha256, parse_object
from latentset.datasets.store.samples import OK

MANIFEST = "manifest.json"
"""Name of the object; the last one that is written."""

CARD_FILES = (
    "README.md",
    "LICENSE",
    "croissant.json",
    "statistics.json",
    "figures",
    ".gitattributes",
)
"""Files, and a folder, that a published store may have beside its objects (specification 6.3)."""

_NO_DIGEST = "0" * 64

_NAME = r"(?!\.{1,2}(?:/|$))[^/\\\x00-\x1f\x7f]{1,200}"
_PATH = re.compile(rf"{_NAME}(?:/{_NAME})*")
_MAX_PATH = 1000


class SampleCounts(Frozen):
    """How many samples have latents, or pixels."""

    total: Count
    ok: Count
    failed: Count

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.ok + self.failed != self.total:
            raise ValueError(f"expected ok + failed = total, got {self}")
        return self


def count_samples(samples: pa.Table) -> SampleCounts:
    """Count the rows of a samples table."""
    ok = int(pc.sum(pc.equal(samples.column("status"), OK)).as_py() or 0)
    return SampleCounts(total=samples.num_rows, ok=ok, failed=samples.num_rows - ok)


class ShardSummary(Frozen):
    """One shard."""

    index: ShardIndex
    samples: Count
    ok: Count
    failed: Count


class Manifest(Frozen):
    """The object ``manifest.json``."""

    format_version: FormatVersion
    sha256: Sha256 | None = None
    """None in version 0.1."""
    fingerprint: Sha256
    samples: SampleCounts
    shards: Annotated[tuple[ShardSummary, ...], Field(max_length=MAX_SHARDS_READ), FailFast()]
    objects: Annotated[tuple[StoredObject, ...], FailFast()]

    @model_validator(mode="after")
    def _check(self) -> Self:
        paths = [item.path for item in self.objects]
        if paths != sorted(set(paths)):
            raise ValueError("objects: expected each path once, sorted")
        folders = {path[:k] for path in paths for k, c in enumerate(path) if c == "/"}
        for path in paths:
            if not _PATH.fullmatch(path) or len(path) > _MAX_PATH or path in folders:
                raise ValueError(f"objects: {path!r:.200} is no path of an object")
        if [shard.index for shard in self.shards] != list(range(len(self.shards))):
            raise ValueError("shards: expected 0, 1, 2, …")
        return self

    @property
    def listed(self) -> dict[str, StoredObject]:
        """The objects by path."""
        return {item.path: item for item in self.objects}

    def to_bytes(self) -> bytes:
        """The object ``manifest.json``, with its own digest."""
        blank = self.model_copy(update={"sha256": _NO_DIGEST})
        content = blank.model_dump_json(indent=1).encode() + b"\n"
        return content.replace(_NO_DIGEST.encode(), sha256_of(content).encode(), 1)


def is_card_file(path: str) -> bool:
    """Whether an object belongs to the card of a published store, not to the store."""
    return path.partition("/")[0] in CARD_FILES


def parse_manifest(content: bytes, where: str) -> Manifest:
    """Parse ``manifest.json``; ``where`` names the store in messages.

    Raises:
        StoreCorruptError: It is torn, or not a manifest.
    """
    document = parse_object(content, f"{where}: {MANIFEST} is not valid")
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        raise StoreCorruptError(
            f"{where}: {MANIFEST} is not valid: {describe_invalid(error)}. It was torn or altered"
        ) from error
    if manifest.format_version == "0.1":
        return manifest
    digest = manifest.sha256 or _NO_DIGEST
    found = sha256_of(content.replace(digest.encode(), _NO_DIGEST.encode(), 1))
    expect(f"{where}: {MANIFEST}: the sha256 that it gives of itself", digest, found)
    return manifest
