"""Encoding samples of a store again, to see whether it holds what its codec gives."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import (
    CpuIsaError,
    ImageError,
    SourceError,
    StoreError,
)
from latentset.datasets.sources import ImageRoot, resolve_inside
from latentset.datasets.sources.images import decode_image, read_bytes
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.store import Store
from latentset.datasets.store.digests import sha256_of
from latentset.datasets.store.header import Header
from latentset.datasets.store.samples import OK
from latentset.pipeline.cpu_isa import CpuIsa
from latentset.pipeline.jobs.coder import TENSORFLOW, Coder, Engine, load_encoder_of, read_software
from latentset.pipeline.jobs.settings import software_of

_ARRAYS = ("z_hat", "y_hat", "scale_index")

_SHOWN = 3
"""Symbols of an array and a sample that are printed."""


@dataclass
class Recomputed:
    """What encoding again has found; lists have a line a sample."""

    samples: int = 0
    symbols: int = 0
    """Of these samples, in all arrays."""
    differing: int = 0
    problems: list[str] = field(default_factory=list)
    """Samples that differ for no known reason."""
    explained: list[str] = field(default_factory=list)
    """Samples that differ, as they may where ``software`` is not empty."""
    not_compared: list[str] = field(default_factory=list)
    """Samples that could not be compared, and why."""
    software: list[str] = field(default_factory=list)
    """What computes here and may not be what the store was made with."""

    def rows(self) -> list[tuple[str, str]]:
        """Name and value for a table."""
        found = f"{self.samples} samples: {self.differing} of {self.symbols} symbols differ"
        return [("encoded again", found), *(("note", text) for text in self.software)]


@dataclass(frozen=True)
class Prepared:
    """All that encoding again needs, looked at before a whole store is read."""

    store: Store
    source: ImageRoot
    """Root of the images."""
    samples: list[int]
    """Rows of the samples table."""
    encoder: Coder
    software: list[str]
    """As in :class:`Recomputed`."""
    on_cpus: bool
    """The store was encoded on a CPU, and so it is here."""


def prepare(
    store: Store,
    source: ImageRoot,
    codec: str | None,
    count: int,
    seed: int,
    engine: Engine = TENSORFLOW,
) -> Prepared:
    """Choose ``count`` samples at random, and make sure that there are images and the codec.

    ``codec`` is None for the name in the header. Nothing outside ``source`` is read.
    """
    header = store.header
    good = np.flatnonzero(np.array(store.samples.column("status").to_pylist()) == OK)
    chosen = np.sort(np.random.default_rng(seed).permutation(good)[:count]).tolist()
    _require_images(store, source, chosen)
    if header.codec is None or header.pixels is not None:
        raise StoreError(
            f"{store.location} holds pixels: --recompute is for stores of latents; make the pixels "
            f"again with {header.command} and compare"
        )
    obstacle = ""
    if engine.fix_cpu_isa is not None:
        try:
            engine.fix_cpu_isa(header.provenance.cpu_isa or CpuIsa.native)
        except CpuIsaError as error:
            obstacle = f" ({error})"
    encoder = load_encoder_of(store, header.codec, codec, engine)
    software = _changed_software(header, engine, obstacle)
    on_cpus = header.provenance.device == engine.environment()["device"] == "CPU"
    return Prepared(store, source, chosen, encoder, software, on_cpus)


def recompute(prepared: Prepared, report: Callable[[str, int, int], None]) -> Recomputed:
    """Encode samples of a store again and compare every symbol."""
    result, total = Recomputed(software=prepared.software), len(prepared.samples)
    for done, index in enumerate(prepared.samples):
        report("encoding again", done, total)
        _compare(prepared, index, result)
    report("encoding again", total, total)
    return result


def _require_images(store: Store, source: ImageRoot, samples: list[int]) -> None:
    """Refuse a root below which not one of the samples is: it is another one, or misspelt."""
    error: Exception | None = None
    for index in samples:
        try:
            _read_image(source, store.samples.slice(index, 1).to_pylist()[0])
        except (ImageError, SourceError) as found:
            error = error or found
        else:
            return
    if error is not None:
        raise SourceError(
            f"{source} is not the root of the images that {store.location} was made of: of "
            f"{len(samples)} random ones none is there as it was; the first: {error}"
        ) from error


def _read_image(source: ImageRoot, row: dict[str, Any]) -> bytes:
    """Read an image; ImageError or SourceError if it is not the one that was encoded."""
    try:
        content = read_bytes(resolve_inside(source, row["path"]))
    except ImageError as error:
        raise ImageError(f"{row['path']}: {error}", error.status) from error
    if sha256_of(content) != row["source_sha256"]:
        raise SourceError(f"{row['path']}: not the image that was encoded (sha256)")
    return content


def _changed_software(header: Header, engine: Engine, obstacle: str) -> list[str]:
    """Name what symbols may differ by; ``obstacle`` is why the CPU instructions are not those."""
    before, now = (
        {"cpu_isa": str(CpuIsa.native), **software.model_dump(exclude={"tensorflow_compression"})}
        for software in (software_of(header), read_software(engine))
    )
    changed = [
        f"not as when the store was made: {name}: {value} then, {now[name]} now"
        f"{obstacle if name == 'cpu_isa' else ''}"
        for name, value in before.items()
        if now[name] != value
    ]
    if engine.fix_cpu_isa is not None and before["cpu_isa"] == now["cpu_isa"] == CpuIsa.native:
        changed.append(
            "cpu_isa: native: the store does not say which CPU computed it with which vector "
            "instructions"
        )
    return changed


def _compare(prepared: Prepared, index: int, result: Recomputed) -> None:
    """Encode one sample again."""
    store = prepared.store
    row = store.samples.slice(index, 1).to_pylist()[0]
    try:
        content = _read_image(prepared.source, row)
        pixels = ResizeRule.parse(store.header.resize).apply(decode_image(content))
        stored = store.read_sample(index)
    except (ImageError, SourceError, StoreError) as error:
        result.not_compared.append(f"sample {index} ({row['id']}) cannot be compared: {error}")
        return
    latents = prepared.encoder.encode(pixels[np.newaxis])
    wrong, rounding = [], True
    for name in _ARRAYS:
        computed = getattr(latents, name)[0]
        result.symbols += computed.size
        if computed.shape != stored[name].shape:
            wrong.append(f"{name} has {computed.shape}, stored {stored[name].shape}")
            result.differing += computed.size
            rounding = False
            continue
        difference = computed.astype(np.int64) - stored[name]
        positions = np.argwhere(difference)
        result.differing += len(positions)
        if len(positions):
            # A scale follows from all of z_hat around it, so it may change by more than one; and
            # not at all where z_hat is the same and h_s computes with integers.
            follows = name == "scale_index" and bool(wrong) and wrong[0].startswith("z_hat")
            exact = name == "scale_index" and _is_exact(prepared, stored["z_hat"])
            rounding &= follows or (not exact and int(np.abs(difference).max()) == 1)
            wrong.append(_describe_symbols(name, positions, computed, stored[name]))
    result.samples += 1
    if wrong:
        lines = result.explained if prepared.software and rounding else result.problems
        lines.append(f"sample {index} ({row['id']}) encoded again: {'; '.join(wrong)}")


def _is_exact(prepared: Prepared, z_hat: NDArray[Any]) -> bool:
    """Whether both CPUs, then and now, get the same scale index of these symbols of z."""
    codec = prepared.encoder.info
    limit = codec.h_s_exact_to if prepared.on_cpus else None
    if limit is None:
        return False
    return bool((np.abs(z_hat + np.array(codec.z_offset)) <= limit).all())


def _describe_symbols(
    name: str, positions: NDArray[Any], computed: NDArray[Any], stored: NDArray[Any]
) -> str:
    first = ", ".join(
        f"{computed[position]} for {stored[position]} at {position}"
        for position in (tuple(map(int, row)) for row in positions[:_SHOWN])
    )
    more = ", …" if len(positions) > _SHOWN else ""
    return f"{name}: {len(positions)} of {computed.size} symbols differ: {first}{more}"
