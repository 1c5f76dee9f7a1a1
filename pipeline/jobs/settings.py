"""The settings that decide what a store holds, and the fingerprint that identifies them."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from pydantic import PositiveInt

from latentset.datasets.errors import SettingsChangedError
from latentset.datasets.sources import Source
from latentset.datasets.store.digests import sha256_of
from latentset.datasets.store.formats import Format
from latentset.datasets.store.header import Described, Header, SourceInfo, Sparse

_SHOWN = 70
"""Characters of a value in a message."""

_ABSENT = {"software.cpu_isa": "native"}
"""What it means that a setting is absent."""


class Software(Sparse):
    """What decides the values besides the settings: all workers must have the same."""

    tensorflow: str
    tensorflow_compression: str
    onednn: bool
    """Whether TensorFlow's oneDNN kernels are on."""
    device: str
    cpu_isa: str | None = None
    """Vector instructions; None lets each CPU use its best."""
    decoder: str
    """What decodes and resizes images, with its version."""


class Settings(Described):
    """Everything that decides the bytes of a store, time stamps aside.

    But for decoded stores: when their latents were encoded tells those of exchanged images apart.

    Excluded on purpose, because they change nothing: batch size, workers, scheduler, the locations
    of source and codec.
    """

    container: Format = "zarr"
    target_shard_bytes: PositiveInt
    """Wanted size of a shard of ``y_hat`` or ``pixels`` before compression."""
    software: Software

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the settings as JSON with sorted keys."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return sha256_of(text.encode())


def software_of(header: Header) -> Software:
    """Recover the software that a store was made with."""
    return Software(**{name: getattr(header.provenance, name) for name in Software.model_fields})


def settings_of(header: Header, container: Format) -> Settings:
    """Recover the settings that a store was made with."""
    return Settings(
        **{name: getattr(header, name) for name in Described.model_fields},
        container=container,
        target_shard_bytes=header.layout.target_shard_bytes,
        software=software_of(header),
    )


def describe_source(source: Source) -> SourceInfo:
    """Describe a source for the header."""
    digest = hashlib.sha256()
    columns = (source.samples.column(name).to_pylist() for name in ("id", "path", "label", "split"))
    for row in zip(*columns, strict=True):
        digest.update("\0".join(map(str, row)).encode() + b"\n")
    return SourceInfo(
        kind=source.kind,
        name=source.root.name,
        samples=source.samples.num_rows,
        classes=source.classes,
        listing_sha256=digest.hexdigest(),
    )


_LISTING = (
    "source is the list of images with their labels and splits: files were added or removed, or "
    "--split, --split-seed, --source-kind or --allow was another"
)


def refuse_changes(where: str, before: Settings, now: Settings) -> None:
    """Refuse to resume a store with other settings; SettingsChangedError shows each difference."""
    if before == now:
        return
    old = _ABSENT | dict(_flatten("", before.model_dump(mode="json")))
    new = _ABSENT | dict(_flatten("", now.model_dump(mode="json")))
    lines = [
        f"  {name}: {_show(old.get(name))} before, {_show(new.get(name))} now"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]
    raise SettingsChangedError(
        f"{where} was made with other settings:\n"
        + "\n".join(lines)
        + (f"\n  ({_LISTING})" if before.source != now.source else "")
        + "\nRun it with the settings it was made with, name another STORE, or remove it and "
        "its .job folder first"
    )


def _flatten(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flatten(f"{prefix}.{name}" if prefix else name, item)
    else:
        yield prefix, value


def _show(value: Any) -> str:
    if isinstance(value, list) and len(value) > 4:
        digest = sha256_of(json.dumps(value).encode())[:8]
        return f"{len(value)} values (digest {digest})"
    text = str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
