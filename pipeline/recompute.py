"""Encoding samples of a store again, to see whether it holds what its codec gives."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from latentset.datasets.errors import CodecError, PhotographError, SourceError
from latentset.datasets.photographs import (
    ResizeRule,
    decode_photograph,
    decoder_version,
    read_bytes,
)
from latentset.datasets.sources import resolve_inside
from latentset.datasets.store.objects import sha256_of
from latentset.datasets.store.places import Place
from latentset.datasets.store.reader import Store, open_store
from latentset.datasets.store.samples import OK
from latentset.pipeline.encoding.engine import TENSORFLOW, Encoder, Engine

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
    """Samples that differ or could not be compared, a line each."""
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


def recompute(
    location: str | Path | Place,
    source: Path,
    codec: str | None,
    count: int,
    seed: int,
    report: Callable[[str, int, int], None],
    engine: Engine = TENSORFLOW,
) -> Recomputed:
    """Encode random samples of a store again and compare every symbol.

    Args:
        location: The store.
        source: Root of the photographs; nothing outside it is read.
        codec: Name or path of the codec; None takes the name in the store's header.
        count: How many samples; all, if there are fewer.
        seed: Which ones.
        report: Is told how far it is.
        engine: Runs the codec.

    Returns:
        What came out.

    Raises:
        CodecError: The codec is not the one that the store was made with.
        StoreError: The store cannot be opened.
    """
    store = open_store(location)
    header = store.header
    encoder = engine.load(codec or header.codec.name, self_check=True)
    if encoder.info.sha256 != header.codec.sha256:
        raise CodecError(
            f"{store.place} was encoded by {header.codec.name} with sha256 {header.codec.sha256}, "
            f"but {codec or header.codec.name} has {encoder.info.sha256}: give the codec's file "
            "with --codec"
        )
    result = Recomputed(software=_changed_software(store, engine))
    good = np.flatnonzero(np.array(store.samples.column("status").to_pylist()) == OK)
    chosen = np.random.default_rng(seed).permutation(good)[:count]
    for done, index in enumerate(np.sort(chosen).tolist()):
        report("encoding again", done, len(chosen))
        _compare(store, index, source, encoder, result)
    report("encoding again", len(chosen), len(chosen))
    return result


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


def _compare(store: Store, index: int, source: Path, encoder: Encoder, result: Recomputed) -> None:
    """Encode one sample again."""
    row = store.samples.slice(index, 1).to_pylist()[0]
    try:
        content = read_bytes(resolve_inside(source, row["path"]))
        if sha256_of(content) != row["source_sha256"]:
            result.problems.append(f"{row['path']}: not the photograph that was encoded (sha256)")
            return
        pixels = ResizeRule.parse(store.header.resize).apply(decode_photograph(content))
    except (PhotographError, SourceError) as error:
        result.problems.append(f"{row['path']}: cannot be compared: {error}")
        return
    latents = encoder.encode(pixels[np.newaxis])
    stored = store.read_sample(index)
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
