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

MIXED_CHUNK_ROWS = 256
"""Rows of a chunk of latents where samples differ in size: at 192 channels 96 KiB of y_hat, the
size at which one sample of 256x256 pixels makes one chunk."""

MIXED_CHUNK_PIXELS = 1 << 15
"""Rows of a chunk of pixels where samples differ in size: 96 KiB as well."""


@dataclass(frozen=True)
class ArrayForm:
    """One array of a store."""

    dtype: str
    channels: int
    chunk_rows: int
    shard_rows: int
    shards: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, channels)."""
        return self.shards * self.shard_rows, self.channels


def array_form(header: Header, name: ArrayName) -> ArrayForm:
    """The form that the header gives an array."""
    layout, content = header.layout, header.content
    channels, chunk, shard = content.channels, layout.chunk_rows, layout.shard_rows
    if name == "z_hat":
        channels, chunk, shard = content.z_channels, layout.z_chunk_rows, layout.z_shard_rows
    return ArrayForm(DTYPES[name], channels, chunk, shard, layout.shards)


@dataclass(frozen=True)
class RowForm:
    """A row of a store's first array, as the layout counts with it."""

    bytes: int
    mixed_chunk: int
    """Rows of a chunk where samples differ in size, at most."""


def rows_of(content: CodecInfo | PixelInfo) -> RowForm:
    """The form of a row of a store's first array."""
    if isinstance(content, PixelInfo):
        return RowForm(content.channels, MIXED_CHUNK_PIXELS)
    return RowForm(2 * content.channels, MIXED_CHUNK_ROWS)


class ImageSizes:
    """(height, width) of an image on its way into a store: as coded, as stored, as a grid.

    The arguments of each method are the image's own height and width, pixels. Each raises an
    ImageError where the resize rule makes the image too large.

    Args:
        content: What determines how large the grid of a stored image is.
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
        """What the codec was given, whose pixels ``rate_bpp`` counts; of an original, its own."""
        return self._before.size(height, width)

    def image(self, height: int, width: int) -> tuple[int, int]:
        """After all resizing: what the codec was given, or what is stored as pixels."""
        return self._after.size(*self.coded(height, width))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Of the grid of positions that the image has in the store."""
        return self._content.y_size(*self.image(height, width))
