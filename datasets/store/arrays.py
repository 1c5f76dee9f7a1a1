"""What each array of a store is, and how large an image's grid is (docs/store-spec.md, 2 and 4).

The one place that knows: whatever writes, reads, checks or converts arrays asks here.
"""

from dataclasses import dataclass

from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.store.header import ArrayName, CodecInfo, Header, PixelInfo

DTYPES: dict[ArrayName, str] = {
    "y_hat": "int16",
    "scale_index": "uint8",
    "z_hat": "int16",
    "sigma_hat": "float16",
    "pixels": "uint8",
}
"""Data type of each array."""

MIXED_CHUNK_ROWS = 256
"""Rows of a chunk of latents where samples differ in size: at 192 channels 96 KiB of y_hat, the
size at which one sample of 256x256 pixels makes one chunk."""

MIXED_CHUNK_PIXELS = 1 << 15
"""Rows of a chunk of pixels where samples differ in size: 96 KiB as well."""


@dataclass(frozen=True)
class ArrayForm:
    """One array of a store."""

    dtype: str
    """Data type."""
    channels: int
    """Its second axis."""
    chunk_rows: int
    """Rows of an inner chunk."""
    shard_rows: int
    """Rows of a shard."""
    shards: int
    """Number of shards."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, channels)."""
        return self.shards * self.shard_rows, self.channels


def array_form(header: Header, name: ArrayName) -> ArrayForm:
    """Say what an array of a store is.

    Args:
        header: The store's header.
        name: Name of the array.

    Returns:
        Its form.
    """
    layout, content = header.layout, header.content
    channels, chunk, shard = content.channels, layout.chunk_rows, layout.shard_rows
    if name == "z_hat":
        channels, chunk, shard = content.z_channels, layout.z_chunk_rows, layout.z_shard_rows
    return ArrayForm(DTYPES[name], channels, chunk, shard, layout.shards)


@dataclass(frozen=True)
class Rows:
    """A row of a store's first array, as the layout reckons with it."""

    bytes: int
    """Its size before compression."""
    mixed_chunk: int
    """Rows of a chunk where samples differ in size, at most."""


def latent_rows(channels: int) -> Rows:
    """Rows of ``y_hat``.

    Args:
        channels: Its channels.

    Returns:
        What the layout reckons with.
    """
    return Rows(2 * channels, MIXED_CHUNK_ROWS)


def rows_of(content: CodecInfo | PixelInfo) -> Rows:
    """Rows of a store's first array.

    Args:
        content: What the store holds.

    Returns:
        What the layout reckons with.
    """
    if isinstance(content, PixelInfo):
        return Rows(content.channels, MIXED_CHUNK_PIXELS)
    return latent_rows(content.channels)


class Sizes:
    """How large an image is on its way into a store: as coded, as stored, as a grid.

    Args:
        content: What says how large the grid of a stored image is.
        resize: The store's resize rule.

    Raises:
        SourceError: A resize rule is not known.
    """

    def __init__(self, content: CodecInfo | PixelInfo, resize: str) -> None:
        # Latents: resized, then coded. Pixels: coded (a JPEG file is, too), then resized.
        before, after = resize, "none"
        if isinstance(content, PixelInfo):
            before, after = content.coded_resize, resize
        self._content = content
        self._before, self._after = ResizeRule.parse(before), ResizeRule.parse(after)

    def coded(self, height: int, width: int) -> tuple[int, int]:
        """Size of the image that ``rate_bpp`` counts the pixels of.

        Args:
            height: Height of the image, pixels.
            width: Width of the image, pixels.

        Returns:
            (height, width): what the codec was given; an original was coded as it is.

        Raises:
            ImageError: The resize rule makes it too large.
        """
        return self._before.size(height, width)

    def image(self, height: int, width: int) -> tuple[int, int]:
        """Size of the image after all resizing.

        Args:
            height: Height of the image, pixels.
            width: Width of the image, pixels.

        Returns:
            (height, width): what the codec was given, or what is stored as pixels.

        Raises:
            ImageError: The resize rule makes it too large.
        """
        return self._after.size(*self.coded(height, width))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Size of the grid of positions that the image has in the store.

        Args:
            height: Height of the image, pixels.
            width: Width of the image, pixels.

        Returns:
            (height, width).

        Raises:
            ImageError: The resize rule makes it too large.
        """
        return self._content.y_size(*self.image(height, width))
