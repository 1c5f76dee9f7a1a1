"""The manifest: what a store consists of, and that it is complete (docs/store-spec.md, 6)."""

from typing import Literal, Self

from pydantic import NonNegativeInt, ValidationError, model_validator

from latentset.datasets.errors import StoreCorruptError
from latentset.datasets.store.header import FORMAT_VERSION, Frozen, Sha256, describe
from latentset.datasets.store.objects import StoredObject

MANIFEST = "manifest.json"
"""Name of the object; the last one that is written."""


class SampleCounts(Frozen):
    """How many samples have latents."""

    total: NonNegativeInt
    """Rows of the samples table."""
    ok: NonNegativeInt
    """Samples with latents."""
    failed: NonNegativeInt
    """Samples without."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.ok + self.failed != self.total:
            raise ValueError(f"expected ok + failed = total, got {self}")
        return self


class ShardSummary(Frozen):
    """One shard."""

    index: NonNegativeInt
    """Its number, as in the chunk keys."""
    samples: NonNegativeInt
    """Samples that its task was given."""
    ok: NonNegativeInt
    """Of these, with latents."""
    failed: NonNegativeInt
    """Of these, without."""


class Manifest(Frozen):
    """The object ``manifest.json``."""

    format_version: Literal["0.1"] = FORMAT_VERSION
    """Version of docs/store-spec.md."""
    fingerprint: Sha256
    """Identifies the resolved settings of the job that wrote the store."""
    samples: SampleCounts
    """Over the whole store."""
    shards: tuple[ShardSummary, ...]
    """In order."""
    objects: tuple[StoredObject, ...]
    """Everything but the manifest itself, sorted by path."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        paths = [item.path for item in self.objects]
        if paths != sorted(set(paths)):
            raise ValueError("objects: expected each path once, sorted")
        for path in paths:
            if path.startswith("/") or ".." in path.split("/"):
                raise ValueError(f"objects: {path} leads out of the store")
        if [shard.index for shard in self.shards] != list(range(len(self.shards))):
            raise ValueError("shards: expected 0, 1, 2, …")
        return self

    def to_bytes(self) -> bytes:
        """The object ``manifest.json``."""
        return self.model_dump_json(indent=1).encode() + b"\n"


def parse_manifest(content: bytes, where: str) -> Manifest:
    """Parse ``manifest.json``.

    Args:
        content: The object.
        where: The store, for messages.

    Returns:
        The manifest.

    Raises:
        StoreCorruptError: It is torn, or not a manifest.
    """
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise StoreCorruptError(
            f"{where}: {MANIFEST} is not valid: {describe(error)}. It was torn or altered: "
            "fetch it again, or encode the store again"
        ) from error
