"""What the positions of a store's grids mean: a codec's latents, or pixels (docs/store-spec.md, 3).

These are objects in the header; ``header`` has the rest of it.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest, 64 lower-case hexadecimal digits."""

FileName = Annotated[
    str, Field(pattern=r"^[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*$", max_length=200)
]
"""A name that a folder may have: folders of runs are named after codecs."""


class Frozen(BaseModel):
    """A JSON object whose fields are fixed, checked when parsed, and never changed afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Sparse(Frozen):
    """The same, with fields that may be absent: None here, left out of the JSON."""

    @model_serializer(mode="wrap")
    def _leave_out(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value is not None}


class CodecInfo(Sparse):
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
    h_s_exact_to: PositiveInt | None = None
    """h_s is a network of integers: for ``z_hat`` (offset added) up to this magnitude,
    ``scale_index`` is the same on every CPU. Absent where it computes with fractions."""
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

    def z_grid(self, height: Any, width: Any) -> tuple[Any, Any]:
        """Size of the ``z_hat`` grid that goes with a grid of ``y_hat``.

        Args:
            height: Height of the grid of ``y_hat``, or an array of them.
            width: Width of the grid of ``y_hat``, or an array of them.

        Returns:
            (height, width) of the grid of ``z_hat``.
        """
        ratio = self.z_downsampling // self.y_downsampling
        return -(-height // ratio), -(-width // ratio)


class Provenance(Sparse):
    """With what a store was made, and when."""

    latentset: str
    """Version of this package."""
    tensorflow: str
    """Version of TensorFlow, which ran the codec."""
    tensorflow_compression: str
    """Version of tensorflow-compression; empty where it was not there."""
    onednn: bool
    """Whether TensorFlow's oneDNN kernels were on; some symbols differ without them."""
    device: str
    """What ran the codec: ``cpu``, or the GPU's name."""
    cpu_isa: Annotated[str, Field(min_length=1)] | None = None
    """Vector instructions that every worker was held to: ``avx2``, ``avx512``. Absent where each
    took the best of its CPU, and where no codec ran."""
    decoder: str
    """What decoded and resized the images, with its version."""
    python: str
    """Version of Python."""
    numpy: str
    """Version of NumPy."""
    zarr: str
    """Version of zarr-python, which wrote the arrays."""
    created: str
    """When the job was planned, ISO 8601, UTC."""


class LatentsInfo(Frozen):
    """The store of latents that pixels were decoded from."""

    fingerprint: Sha256
    """Of its manifest: identifies codec, images, resize rule and software."""
    resize: str
    """What was done to each image before it was encoded: with it, the decoded images have the
    sizes of what they are reconstructions of."""
    provenance: Provenance
    """With what, and when, the latents were made."""
    measured: bool
    """Whether the decoded images were compared with the images, resized by ``resize``."""


class PixelInfo(Sparse):
    """What the pixels of a store are: of the images, or of what a codec made of them."""

    kind: Literal["original", "decoded"]
    """Of the images, or decoded from latents."""
    latents: LatentsInfo | None = None
    """Where they were decoded from; absent for originals."""

    channels: ClassVar[int] = 3
    """Red, green, blue."""
    z_channels: ClassVar[int] = 0
    """There is no ``z_hat``."""

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
        """Size of the grid of an image: one position a pixel."""
        return height, width

    def z_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the grid of ``z_hat``, which is not there."""
        return 0, 0

    def z_grid(self, height: Any, width: Any) -> tuple[Any, Any]:
        """Size of the grid of ``z_hat``, which is not there; of arrays too."""
        return 0 * height, 0 * width
