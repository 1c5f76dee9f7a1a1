"""The header of a store: what its numbers mean and where they come from (docs/store-spec.md, 3).

The header is the value of the root group's attribute ``latentset``. The models here are that
JSON object, field by field; a field that is not known is an error, because a reader that skips
what it does not understand may take the numbers for something else.
"""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from latentset.datasets.errors import StoreFormatError

FormatVersion = Literal["0.1", "1.0"]
"""The versions of docs/store-spec.md that this package reads."""

FORMAT_VERSION: FormatVersion = "1.0"
"""The version that it writes."""

ATTRIBUTE = "latentset"
"""Name of the root group's attribute that holds the header."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest, 64 lower-case hexadecimal digits."""

FileName = Annotated[
    str, Field(pattern=r"^[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*$", max_length=200)
]
"""A name that a folder may have: folders of runs are named after codecs."""

ArrayName = Literal["y_hat", "scale_index", "z_hat", "sigma_hat"]
"""Name of an array of a store."""

ARRAYS: tuple[ArrayName, ...] = ("y_hat", "scale_index", "z_hat")
"""The arrays that every store has; ``sigma_hat`` may follow."""


MAX_CHUNK_BYTES = 1 << 30
"""Largest chunk of an array that is read, bytes before compression: ten thousand times the usual
one. What a store says of its sizes is believed up to here."""

MAX_SHARD_BYTES = 1 << 31
"""Largest shard of an array that is read, bytes before compression: 64 times the usual one."""


class Frozen(BaseModel):
    """A JSON object whose fields are fixed, checked when parsed, and never changed afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CodecInfo(Frozen):
    """What a codec's latents are, enough to use them without the codec.

    The dequantised latents are ``y_hat`` itself, ``sigma_hat = scale_table[scale_index]``, and
    ``z_hat + z_offset`` (``z_offset`` per channel).
    """

    name: FileName
    """Name of the codec, for people; ``sha256`` says which it is."""
    sha256: Sha256
    """Digest of the metagraph file."""
    form: Literal["tfc1", "tfc2"]
    """Which generation of tensorflow-compression built the graph: rounding and GDN differ."""
    tensors: dict[str, str]
    """Tensor name in the metagraph for ``input_image``, ``y_hat``, ``scale_index``, ``z_hat``."""
    channels: PositiveInt
    """Channels C of ``y_hat`` and ``scale_index``."""
    z_channels: PositiveInt
    """Channels of ``z_hat``."""
    scale_table: Annotated[
        tuple[Annotated[FiniteFloat, Field(gt=0)], ...], Field(min_length=1, max_length=256)
    ]
    """sigma_hat for each value of ``scale_index``. A codec's own ascends, a store's need not."""
    z_offset: tuple[FiniteFloat, ...]
    """Value to add to the stored symbols of ``z_hat``, one a channel."""
    y_downsampling: Annotated[int, Field(ge=1, le=1024)] = 16
    """Pixels a side of one position of ``y_hat``; sizes are rounded up."""
    z_downsampling: Annotated[int, Field(ge=1, le=65536)] = 64
    """Pixels a side of one position of ``z_hat``; sizes are rounded up."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.z_offset) != self.z_channels:
            raise ValueError(
                f"z_offset: expected one value a channel ({self.z_channels}), "
                f"got {len(self.z_offset)}"
            )
        if self.z_downsampling % self.y_downsampling:
            raise ValueError(
                f"z_downsampling: expected a multiple of y_downsampling ({self.y_downsampling}), "
                f"got {self.z_downsampling}"
            )
        if len(set(self.scale_table)) != len(self.scale_table):
            raise ValueError("scale_table: expected each value once")
        return self

    def y_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the ``y_hat`` grid of an image, rounded up.

        Args:
            height: Height of the encoded image, pixels.
            width: Width of the encoded image, pixels.

        Returns:
            (height, width) of the grid of ``y_hat`` and ``scale_index``.
        """
        return -(-height // self.y_downsampling), -(-width // self.y_downsampling)

    def z_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the ``z_hat`` grid of an image, rounded up.

        Args:
            height: Height of the encoded image, pixels.
            width: Width of the encoded image, pixels.

        Returns:
            (height, width) of the grid of ``z_hat``.
        """
        return -(-height // self.z_downsampling), -(-width // self.z_downsampling)


class SourceInfo(Frozen):
    """Which photographs a store was made from."""

    kind: Annotated[str, Field(min_length=1)]
    """Kind of source: ``imagefolder``, ``minc2500``, ``imagenet``, ``list``, …"""
    name: str
    """Name of the collection, for people; never a path."""
    samples: NonNegativeInt
    """Number of photographs listed, readable or not."""
    classes: tuple[str, ...]
    """Class names; a sample's label is an index into them."""
    listing_sha256: Sha256
    """Identifies the list of ids, paths, labels and splits."""


class Layout(Frozen):
    """How rows are divided into chunks and shards (docs/store-spec.md, 4)."""

    chunk_rows: PositiveInt
    """Rows of an inner chunk of ``y_hat``, ``scale_index``, ``sigma_hat``."""
    shard_rows: PositiveInt
    """Rows of a shard of those; a multiple of ``chunk_rows``."""
    z_chunk_rows: PositiveInt
    """Rows of an inner chunk of ``z_hat``."""
    z_shard_rows: PositiveInt
    """Rows of a shard of ``z_hat``; a multiple of ``z_chunk_rows``."""
    shards: PositiveInt
    """Number of shards of each array."""
    target_shard_bytes: PositiveInt
    """Size of a shard of ``y_hat`` before compression that was asked for."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.shard_rows % self.chunk_rows:
            raise ValueError(
                f"shard_rows: expected a multiple of chunk_rows ({self.chunk_rows}), "
                f"got {self.shard_rows}"
            )
        if self.z_shard_rows % self.z_chunk_rows:
            raise ValueError(
                f"z_shard_rows: expected a multiple of z_chunk_rows ({self.z_chunk_rows}), "
                f"got {self.z_shard_rows}"
            )
        return self


class Provenance(Frozen):
    """With what a store was made, and when."""

    latentset: str
    """Version of this package."""
    tensorflow: str
    """Version of TensorFlow, which ran the codec."""
    tensorflow_compression: str
    """Version of tensorflow-compression; empty where it was not there."""
    onednn: bool
    """Whether TensorFlow's oneDNN kernels were on; symbols differ in places without them."""
    device: str
    """What ran the codec: ``cpu``, or the GPU's name."""
    decoder: str
    """What decoded and resized the photographs, with its version."""
    python: str
    """Version of Python."""
    numpy: str
    """Version of NumPy."""
    zarr: str
    """Version of zarr-python, which wrote the arrays."""
    created: str
    """When the job was planned, ISO 8601, UTC."""


class Header(Frozen):
    """The attribute ``latentset`` of a store's root group."""

    format_version: FormatVersion = FORMAT_VERSION
    """Version of docs/store-spec.md."""
    codec: CodecInfo
    """What the latents are."""
    arrays: tuple[ArrayName, ...]
    """The arrays that the store holds."""
    resize: str
    """What was done to each photograph before it was encoded."""
    source: SourceInfo
    """Which photographs."""
    layout: Layout
    """How rows are divided."""
    provenance: Provenance
    """With what, and when."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.arrays not in (ARRAYS, (*ARRAYS, "sigma_hat")):
            raise ValueError(
                f"arrays: expected {', '.join(ARRAYS)} and perhaps sigma_hat, "
                f"got {', '.join(self.arrays)}"
            )
        layout, codec = self.layout, self.codec
        for field, rows, limit in (
            ("chunk_rows", layout.chunk_rows * codec.channels, MAX_CHUNK_BYTES),
            ("shard_rows", layout.shard_rows * codec.channels, MAX_SHARD_BYTES),
            ("z_chunk_rows", layout.z_chunk_rows * codec.z_channels, MAX_CHUNK_BYTES),
            ("z_shard_rows", layout.z_shard_rows * codec.z_channels, MAX_SHARD_BYTES),
        ):
            if 2 * rows > limit:
                raise ValueError(f"layout.{field}: expected at most {limit} bytes, got {2 * rows}")
        return self


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
        raise StoreFormatError(f"{where}: header: {describe(error)}") from error


def describe(error: ValidationError) -> str:
    """Put a validation error into one line: each field, what was wrong, and what was found.

    Args:
        error: The error.

    Returns:
        Text for the end of a message.
    """
    parts = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        found = f", got {item['input']!r:.80}" if item["type"] != "value_error" else ""
        parts.append(f"{field}: {message}{found}" if field else f"{message}{found}")
    return "; ".join(parts)
