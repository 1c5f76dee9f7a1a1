"""The header of a store: what its numbers mean and where they come from (docs/store-spec.md, 3).

The header is the value of the root group's attribute ``latentset``. The models here are that
JSON object, field by field; a field that is not known is an error, because a reader that skips
what it does not understand may take the numbers for something else.
"""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from latentset.datasets.errors import StoreFormatError, describe_invalid
from latentset.datasets.store.content import (
    CodecInfo,
    Frozen,
    LatentsInfo,
    PixelInfo,
    Provenance,
    Sha256,
    Sparse,
)

__all__ = [
    "ARRAYS",
    "ATTRIBUTE",
    "MAX_CHUNK_BYTES",
    "MAX_SHARD_BYTES",
    "PIXEL_ARRAYS",
    "ArrayName",
    "CodecInfo",
    "Described",
    "FormatVersion",
    "Frozen",
    "Header",
    "LatentsInfo",
    "Layout",
    "PixelInfo",
    "Provenance",
    "Sha256",
    "SourceInfo",
    "format_version_of",
    "parse_header",
]

FormatVersion = Literal["0.1", "1.0", "1.1", "1.2"]
"""The versions of docs/store-spec.md that this package reads. It writes the lowest that has what a
store needs (:func:`format_version_of`), never 0.1."""

ATTRIBUTE = "latentset"
"""Name of the root group's attribute that holds the header."""

ArrayName = Literal["y_hat", "scale_index", "z_hat", "sigma_hat", "pixels"]
"""Name of an array of a store."""

ARRAYS: tuple[ArrayName, ...] = ("y_hat", "scale_index", "z_hat")
"""The arrays that every store of latents has; ``sigma_hat`` may follow."""

PIXEL_ARRAYS: tuple[ArrayName, ...] = ("pixels",)
"""The arrays of a store of pixels."""


def format_version_of(arrays: tuple[ArrayName, ...], *since_1_2: object) -> FormatVersion:
    """Choose the version of docs/store-spec.md that a new store is written in.

    Args:
        arrays: The store's arrays.
        *since_1_2: Fields of its header that came with 1.2; None where they are absent.

    Returns:
        The lowest that has them, so that earlier readers go on reading what they can.
    """
    if any(since_1_2):
        return "1.2"
    return "1.1" if arrays == PIXEL_ARRAYS else "1.0"


MAX_CHUNK_BYTES = 1 << 30
"""Largest chunk of an array that is read, bytes before compression: ten thousand times the usual
one. What a store says of its sizes is believed up to here."""

MAX_SHARD_BYTES = 1 << 31
"""Largest shard of an array that is read, bytes before compression: 64 times the usual one."""


class SourceInfo(Frozen):
    """Which images a store was made from."""

    kind: Annotated[str, Field(min_length=1)]
    """Kind of source: ``imagefolder``, ``minc2500``, ``imagenet``, ``list``, …"""
    name: str
    """Name of the collection, for people; never a path."""
    samples: NonNegativeInt
    """Number of images listed, readable or not."""
    classes: tuple[str, ...]
    """Class names; a sample's label is an index into them."""
    listing_sha256: Sha256
    """Identifies the list of ids, paths, labels and splits."""


class Layout(Frozen):
    """How rows are divided into chunks and shards (docs/store-spec.md, 4)."""

    chunk_rows: PositiveInt
    """Rows of an inner chunk of ``y_hat``, ``scale_index``, ``sigma_hat``, ``pixels``."""
    shard_rows: PositiveInt
    """Rows of a shard of those; a multiple of ``chunk_rows``."""
    z_chunk_rows: NonNegativeInt
    """Rows of an inner chunk of ``z_hat``; 0 in a store without it."""
    z_shard_rows: NonNegativeInt
    """Rows of a shard of ``z_hat``, a multiple of ``z_chunk_rows``; 0 in a store without it."""
    shards: PositiveInt
    """Number of shards of each array."""
    target_shard_bytes: PositiveInt
    """Size of a shard of ``y_hat`` or ``pixels`` before compression that was asked for."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.shard_rows % self.chunk_rows:
            raise ValueError(
                f"shard_rows: expected a multiple of chunk_rows ({self.chunk_rows}), "
                f"got {self.shard_rows}"
            )
        if self.z_shard_rows % max(1, self.z_chunk_rows):
            raise ValueError(
                f"z_shard_rows: expected a multiple of z_chunk_rows ({self.z_chunk_rows}), "
                f"got {self.z_shard_rows}"
            )
        return self


class Described(Sparse):
    """What a store holds: the part of its header that its maker decides."""

    format_version: FormatVersion
    """Version of docs/store-spec.md."""
    codec: CodecInfo | None = None
    """What made the latents, and the pixels if they are decoded; absent for originals."""
    pixels: PixelInfo | None = None
    """What the pixels are; absent in a store of latents."""
    arrays: tuple[ArrayName, ...]
    """The arrays that the store holds."""
    resize: str
    """What was done to each image right before it was encoded, or stored as pixels."""
    source: SourceInfo
    """Which images."""

    @model_validator(mode="after")
    def _check_content(self) -> Self:
        if self.arrays not in (ARRAYS, (*ARRAYS, "sigma_hat"), PIXEL_ARRAYS):
            raise ValueError(
                f"arrays: expected {', '.join(ARRAYS)} and perhaps sigma_hat, or pixels alone, "
                f"got {', '.join(self.arrays)}"
            )
        pixels = self.pixels
        if (pixels is not None) != (self.arrays == PIXEL_ARRAYS):
            raise ValueError("pixels: expected where the array is pixels, and nowhere else")
        if pixels is not None and self.format_version in ("0.1", "1.0"):
            raise ValueError(f"format_version: there are no pixels in {self.format_version}")
        if (self.codec is None) != (pixels is not None and pixels.kind == "original"):
            raise ValueError("codec: expected of everything but original pixels")
        return self

    @property
    def content(self) -> CodecInfo | PixelInfo:
        """What says how large the grid of an image is, and how many channels it has."""
        content = self.pixels or self.codec
        if content is None:
            raise ValueError("codec: missing")
        return content

    @property
    def noun(self) -> str:
        """What samples have in this store, for messages."""
        return "latents" if self.pixels is None else "pixels"

    @property
    def command(self) -> str:
        """What makes such a store, for messages."""
        decoded = self.pixels is not None and self.pixels.latents is not None
        return "latentset decode" if decoded else "latentset encode"


class Header(Described):
    """The attribute ``latentset`` of a store's root group."""

    layout: Layout
    """How rows are divided."""
    provenance: Provenance
    """With what, and when."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        layout, content = self.layout, self.content
        there = "z_hat" in self.arrays
        if (layout.z_chunk_rows > 0) != there or (layout.z_shard_rows > 0) != there:
            raise ValueError(
                "layout: expected z_chunk_rows and z_shard_rows beyond 0 where there is z_hat, and "
                f"0 elsewhere, got {layout.z_chunk_rows} and {layout.z_shard_rows}"
            )
        for field, rows, limit in (
            ("chunk_rows", layout.chunk_rows * content.channels, MAX_CHUNK_BYTES),
            ("shard_rows", layout.shard_rows * content.channels, MAX_SHARD_BYTES),
            ("z_chunk_rows", layout.z_chunk_rows * content.z_channels, MAX_CHUNK_BYTES),
            ("z_shard_rows", layout.z_shard_rows * content.z_channels, MAX_SHARD_BYTES),
        ):
            if 2 * rows > limit:
                raise ValueError(f"layout.{field}: expected at most {limit} bytes, got {2 * rows}")
        if self.format_version in ("0.1", "1.0", "1.1") and any(self._since_1_2):
            raise ValueError(
                f"format_version: there is no cpu_isa and no h_s_exact_to in {self.format_version}"
            )
        return self

    @property
    def _since_1_2(self) -> tuple[object, ...]:
        latents = self.pixels.latents if self.pixels else None
        return (
            self.provenance.cpu_isa,
            latents.provenance.cpu_isa if latents else None,
            self.codec.h_s_exact_to if self.codec else None,
        )

    @property
    def lowest_version(self) -> FormatVersion:
        """The version that a store with this header is written in now."""
        return format_version_of(self.arrays, *self._since_1_2)


def parse_header(value: Any, where: str) -> Header:
    """Parse the attribute ``latentset``.

    Args:
        value: What the attribute holds, as JSON gives it.
        where: The store, for messages.

    Returns:
        The header.

    Raises:
        StoreFormatError: The value is no header, or of a version that this reader does not know.
    """
    if not isinstance(value, dict):
        raise StoreFormatError(
            f"{where}: not a LatentSet store: its root group has no attribute {ATTRIBUTE!r}"
        )
    version = value.get("format_version")
    if version not in get_args(FormatVersion):
        raise StoreFormatError(
            f"{where}: format_version: expected {' or '.join(get_args(FormatVersion))}, got "
            f"{version!r}; read it with a LatentSet that knows it, or encode again with this one"
        )
    try:
        return Header.model_validate(value)
    except ValidationError as error:
        raise StoreFormatError(f"{where}: header: {describe_invalid(error)}") from error
