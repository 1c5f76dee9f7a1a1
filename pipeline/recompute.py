"""Encoding samples of a store again, to see whether it holds what its codec gives."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from latentset.datasets.errors import CodecError, PhotographError, SourceError, StoreError
from latentset.datasets.photographs import (
    ResizeRule,
    decode_photograph,
    decoder_version,
    read_bytes,
)
from latentset.datasets.sources import resolve_inside
from latentset.datasets.store.objects import sha256_of
from latentset.datasets.store.reader import Store
from latentset.datasets.store.samples import OK
from latentset.pipeline.encoding.engine import TENSORFLOW, Coder, Engine

_ARRAYS = ("y_hat", "scale_index", "z_hat")


@dataclass
class Recomputed:
    """What came out."""

    samples: int = 0
    """Samples that were encoded again."""
    symbols: int = 0
    """Their symbols, of all arrays."""
    differing: int = 0
    """Symbols that differ."""
    problems: list[str] = field(default_factory=list)
    """Samples that differ, a line each."""
    not_compared: list[str] = field(default_factory=list)
    """Samples that could not be compared, and why, a line each."""
    software: list[str] = field(default_factory=list)
    """What computes here and is not what the store was made with: symbols may differ by it."""

    def rows(self) -> list[tuple[str, str]]:
        """Name and value for a table."""
        rows = [
            (
                "encoded again",
                f"{self.samples} samples: {self.differing} of {self.symbols} symbols differ",
            )
        ]
        return rows + [
            ("note", f"not as when the store was made: {text}") for text in self.software
        ]


@dataclass(frozen=True)
class Prepared:
    """All that encoding again needs, looked at before a whole store is read."""

    store: Store
    """The store."""
    source: Path
    """Root of the photographs."""
    samples: list[int]
    """Rows of the samples table."""
    encoder: Coder
    """The store's codec."""
    software: list[str]
    """What computes here and is not what the store was made with."""


def prepare(
    store: Store,
    source: Path,
    codec: str | None,
    count: int,
    seed: int,
    engine: Engine = TENSORFLOW,
) -> Prepared:
    """Choose samples, and make sure that there are photographs and the codec.

    Args:
        store: A complete store.
        source: Root of the photographs; nothing outside it is read.
        codec: Name or path of the codec; None takes the name in the store's header.
        count: How many samples; all, if there are fewer.
        seed: Which ones.
        engine: Runs the codec.

    Returns:
        What ``recompute`` needs.

    Raises:
        CodecError: The codec is not the one that the store was made with.
        SourceError: None of the photographs is there.
    """
    header = store.header
    good = np.flatnonzero(np.array(store.samples.column("status").to_pylist()) == OK)
    chosen = np.sort(np.random.default_rng(seed).permutation(good)[:count]).tolist()
    _require_photographs(store, source, chosen)
    if header.codec is None or header.pixels is not None:
        raise StoreError(
            f"{store.place} holds pixels: --recompute is for stores of latents; make the pixels "
            f"again with {header.command} and compare"
        )
    encoder = engine.load(codec or header.codec.name, self_check=True)
    if encoder.info.sha256 != header.codec.sha256:
        raise CodecError(
            f"{store.place} was encoded by {header.codec.name} with sha256 {header.codec.sha256}, "
            f"but {codec or header.codec.name} has {encoder.info.sha256}: give the codec's file "
            "with --codec"
        )
    return Prepared(store, source, chosen, encoder, _changed_software(store, engine))


def recompute(prepared: Prepared, report: Callable[[str, int, int], None]) -> Recomputed:
    """Encode samples of a store again and compare every symbol.

    Args:
        prepared: Which ones, and by what.
        report: Is told how far it is.

    Returns:
        What came out.
    """
    result, total = Recomputed(software=prepared.software), len(prepared.samples)
    for done, index in enumerate(prepared.samples):
        report("encoding again", done, total)
        _compare(prepared, index, result)
    report("encoding again", total, total)
    return result


def _require_photographs(store: Store, source: Path, samples: list[int]) -> None:
    """Refuse a root below which not one of the samples lies: it is another one, or misspelt."""
    error: Exception | None = None
    for index in samples:
        try:
            _read_photograph(source, store.samples.slice(index, 1).to_pylist()[0])
        except (PhotographError, SourceError) as found:
            error = error or found
        else:
            return
    if error is not None:
        raise SourceError(
            f"{source} is not the root of the photographs that {store.place} was made of: of "
            f"{len(samples)} random ones none is there as it was; the first: {error}"
        ) from error


def _read_photograph(source: Path, row: dict[str, Any]) -> bytes:
    """Read a photograph; PhotographError or SourceError if it is not the one that was encoded."""
    try:
        content = read_bytes(resolve_inside(source, row["path"]))
    except PhotographError as error:
        raise PhotographError(f"{row['path']}: {error}", error.status) from error
    if sha256_of(content) != row["source_sha256"]:
        raise SourceError(f"{row['path']}: not the photograph that was encoded (sha256)")
    return content


def _changed_software(store: Store, engine: Engine) -> list[str]:
    made = store.header.provenance
    now = dict(engine.environment()) | {"decoder": decoder_version()}
    before = {
        "tensorflow": made.tensorflow,
        "onednn": "1" if made.onednn else "0",
        "device": made.device,
        "decoder": made.decoder,
    }
    return [
        f"{name}: {value} then, {now.get(name)} now"
        for name, value in before.items()
        if now.get(name) != value
    ]


def _compare(prepared: Prepared, index: int, result: Recomputed) -> None:
    """Encode one sample again."""
    store = prepared.store
    row = store.samples.slice(index, 1).to_pylist()[0]
    try:
        content = _read_photograph(prepared.source, row)
        pixels = ResizeRule.parse(store.header.resize).apply(decode_photograph(content))
        stored = store.read_sample(index)
    except (PhotographError, SourceError, StoreError) as error:
        result.not_compared.append(f"sample {index} ({row['id']}) cannot be compared: {error}")
        return
    latents = prepared.encoder.encode(pixels[np.newaxis])
    wrong = []
    for name in _ARRAYS:
        computed = getattr(latents, name)[0]
        if computed.shape != stored[name].shape:
            wrong.append(f"{name} has {computed.shape}, stored {stored[name].shape}")
            differing = computed.size
        else:
            differing = int(np.count_nonzero(computed != stored[name]))
            if differing:
                wrong.append(f"{differing} of {computed.size} symbols of {name} differ")
        result.symbols += computed.size
        result.differing += differing
    result.samples += 1
    if wrong:
        result.problems.append(f"sample {index} ({row['id']}) encoded again: {', '.join(wrong)}")
