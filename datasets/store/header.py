"""The header of a store: what its numbers mean and where they come from (docs/store-spec.md, 3).

The header is the value of the root group's attribute ``latentset``. The models here are that
JSON object, whose fields the specification describes; a field that is not known is an error,
because a reader that skips what it does not understand may take the numbers for something else.
"""

import json
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    FiniteFloat,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from latentset.datasets.errors import (
    StoreCorruptError,
    StoreError,
    StoreFormatError,
    describe_invalid,
)
from latentset.datasets.limits import (
    MAX_CHANNELS,
    MAX_CHUNK_BYTES,
    MAX_CLASSES,
    MAX_SAMPLES,
    MAX_SCALE,
    MAX_SHARD_BYTES,
    MAX_SHARDS_READ,
    Count,
    Text,
)

FormatVersion = Literal["0.1", "1.0", "1.1", "1.2"]
"""The versions of docs/store-spec.md that this package reads. It writes the lowest that has what a
store needs (:func:`format_version_of`), never 0.1."""

ATTRIBUTE = "latentset"
"""Name of the root group's attribute that holds the header."""

ArrayName = Literal["y_hat", "scale_index", "z_hat", "sigma_hat", "pixels"]

ARRAYS: tuple[ArrayName, ...] = ("y_hat", "scale_index", "z_hat")
"""The arrays that every store of latents has; ``sigma_hat`` may follow."""

PIXEL_ARRAYS: tuple[ArrayName, ...] = ("pixels",)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

FileName = Annotated[Text, Field(pattern=r"^[^./\\][^/\\]*$", max_length=200)]
"""A name that a folder may have: folders of runs are named after codecs."""

Channels = Annotated[int, Field(ge=1, le=MAX_CHANNELS)]


class Frozen(BaseModel):
    """A JSON object whose fields are fixed, checked when parsed, and never changed afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Sparse(Frozen):
    """The same, with fields that may be absent: None here, not written to the JSON."""

    @model_serializer(mode="wrap")
    def _drop_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value is not None}


class CodecInfo(Sparse):
    """What a codec's latents are, enough to use them without the codec.

    The dequantised latents are ``y_hat`` itself, ``sigma_hat = scale_table[scale_index]``, and
    ``z_hat + z_offset`` (``z_offset`` per channel).
    """

    name: FileName
    sha256: Sha256
    form: Literal["tfc1", "tfc2"]
    tensors: Annotated[dict[Text, Text], Field(max_length=100)]
    channels: Channels
    z_channels: Channels
    scale_table: Annotated[
        tuple[Annotated[FiniteFloat, Field(ge=1 / MAX_SCALE, le=MAX_SCALE)], ...],
        Field(min_length=1, max_length=256),
    ]
    """A codec's own ascends, a store's need not."""
    z_offset: Annotated[
        tuple[Annotated[FiniteFloat, Field(ge=-MAX_SCALE, le=MAX_SCALE)], ...],
        Field(max_length=MAX_CHANNELS),
        FailFast(),
    ]
    h_s_exact_to: Annotated[Count, Field(ge=1)] | None = None
    """Up to this magnitude of ``z_hat`` (offset added) h_s is exact. Absent: it has fractions."""
    y_downsampling: Annotated[int, Field(ge=1, le=1024)] = 16
    z_downsampling: Annotated[int, Field(ge=1, le=65536)] = 64

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
        """(height, width) of the ``y_hat`` grid of an image of ``height`` x ``width`` pixels."""
        return -(-height // self.y_downsampling), -(-width // self.y_downsampling)

    def z_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the ``z_hat`` grid of an image of ``height`` x ``width`` pixels."""
        return -(-height // self.z_downsampling), -(-width // self.z_downsampling)

    def z_grid(self, height: Any, width: Any) -> tuple[Any, Any]:
        """(height, width) of the ``z_hat`` grid beside a ``y_hat`` grid; of integers or arrays."""
        ratio = self.z_downsampling // self.y_downsampling
        return -(-height // ratio), -(-width // ratio)


class Provenance(Sparse):
    """With what a store was made, and when."""

    latentset: Text
    tensorflow: Text
    tensorflow_compression: Text
    onednn: bool
    device: Text
    cpu_isa: Annotated[Text, Field(min_length=1)] | None = None
    decoder: Text
    python: Text
    numpy: Text
    zarr: Text
    created: Text


class LatentsInfo(Frozen):
    """The store of latents that pixels were decoded from."""

    fingerprint: Sha256
    resize: Text
    provenance: Provenance
    measured: bool


class PixelInfo(Sparse):
    """What the pixels of a store are: of the images, or decoded from latents."""

    kind: Literal["original", "decoded"]
    latents: LatentsInfo | None = None

    channels: ClassVar[int] = 3
    z_channels: ClassVar[int] = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.latents is not None) != (self.kind == "decoded"):
            raise ValueError("latents: expected of pixels that are decoded, and of no others")
        return self

    @property
    def coded_resize(self) -> str:
        """What was done to each image before it was coded; its file is as it is."""
        return self.latents.resize if self.latents else "none"

    def y_size(self, height: int, width: int) -> tuple[int, int]:
        """One position a pixel."""
        return height, width

    def z_size(self, height: int, width: int) -> tuple[int, int]:
        """There is no ``z_hat``."""
        return 0, 0

    def z_grid(self, height: Any, width: Any) -> tuple[Any, Any]:
        """There is no ``z_hat``; of integers or arrays."""
        return 0 * height, 0 * width


class SourceInfo(Frozen):
    """Which images a store was made from."""

    kind: Annotated[Text, Field(min_length=1)]
    name: Text
    samples: Annotated[int, Field(ge=0, le=MAX_SAMPLES)]
    classes: Annotated[tuple[Text, ...], Field(max_length=MAX_CLASSES), FailFast()]
    listing_sha256: Sha256

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(classes)) < len(classes) or "" in classes:
            raise ValueError("expected names of classes that differ, none of them empty")
        return classes


class Layout(Frozen):
    """How rows are divided into chunks and shards (docs/store-spec.md, 4)."""

    chunk_rows: Annotated[Count, Field(ge=1)]
    shard_rows: Annotated[Count, Field(ge=1)]
    z_chunk_rows: Count
    z_shard_rows: Count
    shards: Annotated[int, Field(ge=1, le=MAX_SHARDS_READ)]
    target_shard_bytes: Annotated[Count, Field(ge=1)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for field, rows, name, chunk in (
            ("shard_rows", self.shard_rows, "chunk_rows", self.chunk_rows),
            ("z_shard_rows", self.z_shard_rows, "z_chunk_rows", self.z_chunk_rows),
        ):
            if rows % max(1, chunk):
                raise ValueError(f"{field}: expected a multiple of {name} ({chunk}), got {rows}")
        return self


class Described(Sparse):
    """What a store holds: the part of its header that its maker decides."""

    format_version: FormatVersion
    codec: CodecInfo | None = None
    pixels: PixelInfo | None = None
    arrays: tuple[ArrayName, ...]
    resize: Text
    source: SourceInfo

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
        """What determines how large the grid of an image is, and how many channels it has."""
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
    provenance: Provenance

    @model_validator(mode="after")
    def _check(self) -> Self:
        layout, content = self.layout, self.content
        has_z = "z_hat" in self.arrays
        if (layout.z_chunk_rows > 0) != has_z or (layout.z_shard_rows > 0) != has_z:
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
        if self.format_version in ("0.1", "1.0", "1.1") and self.lowest_version == "1.2":
            raise ValueError(
                f"format_version: there is no cpu_isa and no h_s_exact_to in {self.format_version}"
            )
        return self

    @property
    def lowest_version(self) -> FormatVersion:
        """The version that a store with this header is written in now."""
        latents = self.pixels.latents if self.pixels else None
        return format_version_of(
            self.arrays,
            self.provenance.cpu_isa,
            latents.provenance.cpu_isa if latents else None,
            self.codec.h_s_exact_to if self.codec else None,
        )


def format_version_of(arrays: tuple[ArrayName, ...], *since_1_2: object) -> FormatVersion:
    """The lowest version that has a store's arrays, so that earlier readers can read it.

    ``since_1_2`` are fields of its header that came with 1.2; None where they are absent.
    """
    if any(since_1_2):
        return "1.2"
    return "1.1" if arrays == PIXEL_ARRAYS else "1.0"


def parse_object(
    content: bytes, what: str, error: type[StoreError] = StoreCorruptError
) -> dict[str, Any]:
    """Parse a JSON object that somebody else may have written; ``what`` names it in messages."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as why:
        raise error(f"{what}: no JSON: {why}") from why
    if not isinstance(document, dict):
        raise error(f"{what}: expected a JSON object")
    return document


def parse_header(value: Any, where: str) -> Header:
    """Parse the attribute ``latentset``, as JSON gives it; ``where`` names the store in messages.

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
            f"{version!r:.80}; read it with a LatentSet that knows it, or encode again with this"
        )
    try:
        return Header.model_validate(value)
    except ValidationError as error:
        raise StoreFormatError(f"{where}: header: {describe_invalid(error)}") from error
