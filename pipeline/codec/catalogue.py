"""The codecs that can be named: shipped with this package, and published for download."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from latentset.datasets.errors import CodecGraphError, CodecNotFoundError, FetchError, suggest
from latentset.datasets.storage.folder import user_cache

SUFFIX = ".metagraph"


@dataclass(frozen=True)
class CodecFacts:
    """What a public listing of a codec's tensors shows."""

    y_channels: int
    y_table: tuple[int, ...]
    """Shape of the range coder's table: (scales, entries of a row)."""
    z_table: tuple[int, ...]
    """(channels, entries of a row)."""
    integer_h_s: bool


def _facts(distortion: str, quality: int, z_width: int) -> tuple[str, CodecFacts]:
    N, M = (128, 192) if quality <= 5 else (192, 320)
    facts = CodecFacts(M, y_table=(64, 1481), z_table=(N, z_width), integer_h_s=True)
    return f"bmshj2018-hyperprior-{distortion}-{quality}", facts


PUBLISHED: Mapping[str, CodecFacts] = dict(
    _facts(distortion, quality, z_width)
    for distortion, z_widths in (
        ("msssim", (22, 21, 35, 40, 41, 61, 64, 72)),
        ("mse", (26, 41, 41, 57, 54, 69, 81, 89)),
    )
    for quality, z_width in enumerate(z_widths, 1)
)
"""Scale hyperpriors published by the authors of Balle et al. (2018), quality 1 to 8.

Sources: tensorflow/compression, ``models/README.md``; a public log of ``tfci.py tensors``.
"""


@dataclass(frozen=True)
class CatalogueEntry:
    """One codec that can be named."""

    name: str
    origin: str
    """``shipped``, ``published`` (can be fetched) or ``own`` (put into the cache folder)."""
    path: Path | None


def cache_folder(cache: Path | None = None) -> Path:
    """Return the folder of downloaded codecs: this one, ``LATENTSET_CACHE``'s, or the user's."""
    if cache is not None:
        return cache
    if named := os.environ.get("LATENTSET_CACHE"):
        return Path(named)
    return user_cache() / "codecs"


def record_path(path: Path) -> Path:
    """Return the path of the record of a codec file's SHA-256: ``NAME.metagraph.sha256``."""
    return path.with_name(path.name + ".sha256")


def read_record(path: Path) -> str | None:
    """Return the SHA-256 recorded when a codec file was first fetched; None without a record."""
    record = record_path(path)
    try:
        words = record.read_text(encoding="ascii").split()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise FetchError(f"cannot read the record {record}: {error}") from error
    if not words or not re.fullmatch("[0-9a-f]{64}", words[0]):
        raise FetchError(f"{record} holds no SHA-256: remove it to record the file anew")
    return words[0]


def shipped_codecs() -> dict[str, Path]:
    """Return the codecs that are package data, name to path, sorted by name."""
    return _codecs_in(Path(str(files("latentset.pipeline.codec"))) / "weights")


def check_record(path: Path, sha256: str) -> None:
    """Raise FetchError if a codec file is not the one that was fetched first."""
    recorded = read_record(path)
    if recorded not in (None, sha256):
        raise FetchError(
            f"{path} is not the file that was fetched: expected the SHA-256 {recorded} "
            f"({record_path(path)}), got {sha256}. Remove it and fetch it again"
        )


def _codecs_in(folder: Path) -> dict[str, Path]:
    return {p.name.removesuffix(SUFFIX): p for p in sorted(folder.glob(f"*{SUFFIX}"))}


def list_codecs(cache: Path | None = None) -> list[CatalogueEntry]:
    """List the shipped codecs, the published ones, and others found in the cache folder."""
    cached, shipped = _codecs_in(cache_folder(cache)), shipped_codecs()
    entries = [CatalogueEntry(name, "shipped", path) for name, path in shipped.items()]
    entries += [CatalogueEntry(name, "published", cached.pop(name, None)) for name in PUBLISHED]
    entries += [
        CatalogueEntry(name, "own", path) for name, path in cached.items() if name not in shipped
    ]
    return entries


def locate_codec(name_or_path: str, cache: Path | None = None) -> Path:
    """Find the file of a codec: at that path, shipped, or in the cache folder, in this order."""
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    shipped = shipped_codecs()
    if name_or_path in shipped:
        return shipped[name_or_path]
    folder = cache_folder(cache)
    # A name, not a path that leaves the folder.
    if path.name == name_or_path and (cached := folder / (name_or_path + SUFFIX)).is_file():
        return cached
    if name_or_path in PUBLISHED:
        raise CodecNotFoundError(
            f"the codec {name_or_path} is not in {folder}: run 'latentset codec fetch "
            f"{name_or_path}', or put its file {name_or_path}{SUFFIX} there"
        )
    hint = suggest(name_or_path, (entry.name for entry in list_codecs(cache)))
    raise CodecNotFoundError(
        f"no codec {name_or_path!r}: it is no file, not shipped (there are: "
        f"{', '.join(shipped) or 'none'}), and not in {folder}. 'latentset codec list' shows all"
        f"{hint}"
    )


def check_facts(name: str, found: CodecFacts) -> None:
    """Raise CodecGraphError if a codec has a published name and is another one."""
    if name not in PUBLISHED:
        return
    expected, got = _describe(PUBLISHED[name]), _describe(found)
    different = [f"{k}: expected {expected[k]}, got {got[k]}" for k in got if expected[k] != got[k]]
    if different:
        raise CodecGraphError(
            f"it is not the published codec of this name ({'; '.join(different)}). Put your own "
            "codec under another name, and fetch the published one again"
        )


def _describe(facts: CodecFacts) -> dict[str, str]:
    return {
        "channels of y": str(facts.y_channels),
        "table of y": "x".join(map(str, facts.y_table)),
        "table of z": "x".join(map(str, facts.z_table)),
        "h_s": "a network of integers" if facts.integer_h_s else "a network with fractions",
    }
