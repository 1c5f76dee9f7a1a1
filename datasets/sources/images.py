"""Images as torchvision users get them: RGB uint8, and a status for each that has none.

``torchvision.datasets.folder.pil_loader`` is Pillow's ``open`` followed by ``convert("RGB")``; so
is this module, and the same Pillow gives the same pixels. It follows that

- alpha is dropped, not blended; a palette's transparency likewise;
- CMYK goes through Pillow's own formula, without a colour profile;
- 16-bit greyscale is clipped at 255 (Pillow's rule for mode ``I;16``), which whitens most of it;
- EXIF orientation is **not** applied: the pixels stay as they were stored.

What is added: an image that torchvision would stop at (or take the first frame of) raises a
:class:`~latentset.datasets.errors.ImageError`, whose status and text go into the samples
table. No text holds a path or an address: the same file has the same text on every machine.
"""

import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Literal

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, UnidentifiedImageError, features

from latentset.datasets.errors import ImageError, StoreUnreachableError
from latentset.datasets.sources.resize import MIN_SIDE
from latentset.datasets.sources.root import ImageFile

Status = Literal[
    "ok",  # encoded
    "empty",  # no bytes
    "not_an_image",  # none of the formats in FORMATS
    "truncated",  # the data end before the picture does
    "animated",  # more than one frame in time: which one would be meant?
    "too_small",  # a side below MIN_SIDE pixels
    "too_large",  # Pillow's limit against decompression bombs, or MAX_FILE_BYTES
    "missing",  # no file there
    "unreadable",  # damaged, not permitted, or not a regular file
    "changed",  # other bytes than when the job was planned
]

MAX_FILE_BYTES = 2**30
"""A file is read whole before it is decoded. Pillow's limit of 179 million pixels, uncompressed, is
0.54 GB, so that a larger file is no image."""

CLIPPED = 0.98
"""Share of white and black values from which on an image of more than 8 bits counts as clipped."""

_HEADER_BYTES = 1 << 16
"""Of an image in object storage or a tar file, read for its size."""

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF", "JPEG2000", "AVIF")
"""Formats tried, whatever the file's name ends in (ImageNet has a PNG among its ``.JPEG`` files).
MPO, the JPEG of many telephones, is opened by Pillow's JPEG reader. Others are left out on purpose:
Pillow's reader of EPS, for one, runs an interpreter on the file."""

_ANIMATED_FORMATS = ("GIF", "PNG", "WEBP", "AVIF")
"""In these, more pictures are an animation. In TIFF they are pages and in MPO further views: there
the first one is taken, as torchvision does."""

_SIGNATURES: Mapping[bytes, str] = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
}


_TEXTS: Mapping[bytes, str] = {
    b"version https://": "a pointer of Git LFS, not the image: git lfs pull fetches it",
    b"<!doctype html": "a web page, not an image",
    b"<html": "a web page, not an image",
}
"""What is often found under an image's name, by its beginning in lower case."""


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image as torchvision's ``pil_loader`` does; see :func:`decode_image`."""
    return decode_image(read_bytes(path))


def read_bytes(path: ImageFile) -> bytes:
    """Read an image's file whole, so that one reading serves checksum and decoder.

    Raises:
        ImageError: Status "missing", "unreadable", "empty" or "too_large".
        StoreUnreachableError: Object storage does not answer.
    """
    if not isinstance(path, Path):
        with _refusing_damage():
            _check_bytes(path.size)
            return path.read()
    with _open_file(path) as file, _refusing_damage():
        return file.read()


def decode_image(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode a file's bytes to RGB pixels, (height, width, 3), writable.

    Raises:
        ImageError: With the status that the samples table records.
    """
    if not data:
        raise ImageError("the file is empty", "empty")
    with _pillow_silenced(), _open_image(io.BytesIO(data)) as image, _refusing_damage():
        return np.array(image.convert("RGB"))


def is_clipped(data: bytes, pixels: npt.NDArray[np.uint8]) -> bool:
    """Whether an image of more than 8 bits became nearly all white or black by clipping at 255."""
    sampled = pixels[::4, ::4]
    if np.isin(sampled, (0, 255)).mean() < CLIPPED:
        return False
    with _pillow_silenced(), _open_image(io.BytesIO(data)) as image:
        return image.mode.startswith(("I", "F"))


def read_size(path: ImageFile) -> tuple[int, int]:
    """Read an image's (height, width) in pixels from its header; raises as :func:`decode_image`.

    A truncated file often has a sound header: only decoding reveals it.
    """
    if not isinstance(path, Path):
        with _refusing_damage():
            _check_bytes(path.size)
            try:
                return _parse_size(path.read(_HEADER_BYTES))
            except ImageError:
                if path.size <= _HEADER_BYTES:
                    raise
                return _parse_size(path.read())  # a long header, or one at the end of the file
    with _pillow_silenced(), _open_file(path) as file, _open_image(file) as image:
        return image.height, image.width


def _parse_size(data: bytes) -> tuple[int, int]:
    with _pillow_silenced(), _open_image(io.BytesIO(data)) as image:
        return image.height, image.width


def decoder_version() -> str:
    """What decodes, since versions may differ: ``Pillow 12.0.0 (libjpeg-turbo 3.1.2)``."""
    turbo = features.version("libjpeg_turbo")
    library = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}"
    return f"Pillow {PIL.__version__} ({library})"


@contextmanager
def _open_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular, non-empty file; a pipe named .jpg would otherwise block for ever."""
    with _refusing_damage():
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ImageError("not a regular file", "unreadable")
        _check_bytes(found.st_size)
        file = path.open("rb")
    with file:
        yield file


def _check_bytes(size: int) -> None:
    if size == 0:
        raise ImageError("the file is empty", "empty")
    if size > MAX_FILE_BYTES:
        raise ImageError(f"the file has {size} bytes, more than {MAX_FILE_BYTES}", "too_large")


@contextmanager
def _open_image(file: IO[bytes]) -> Iterator[Image.Image]:
    """Open an image and check what its header says."""
    with _refusing_damage():
        try:
            image = Image.open(file, formats=_known_formats())
        except Exception as error:
            file.seek(0)
            head = file.read(16)
            if isinstance(error, UnidentifiedImageError):
                for signature, name in _SIGNATURES.items():
                    if head.startswith(signature):
                        what = f"begins like a {name} file, but its header is cut off, damaged, or"
                        what += " of a kind that is not read (JPEG of 12 bits)"
                        raise ImageError(what, "unreadable") from None
                for beginning, what in _TEXTS.items():
                    if head.lower().startswith(beginning):
                        raise ImageError(what, "not_an_image") from None
                what = f"not an image of a known format: begins with {head!r}"
                raise ImageError(what, "not_an_image") from None
            promised = int.from_bytes(head[4:8], "little") + 8
            if head[:4] == b"RIFF" and file.seek(0, os.SEEK_END) < promised:
                raise ImageError("cut off: shorter than its header says", "truncated") from error
            raise
        width, height = image.size
        if min(width, height) < MIN_SIDE:
            what = f"{height}x{width} pixels (height x width): a side is below {MIN_SIDE}"
            raise ImageError(what, "too_small")
        if image.format in _ANIMATED_FORMATS and getattr(image, "is_animated", False):
            raise ImageError(f"an animation ({image.format}), not one picture", "animated")
    with image:
        yield image


@cache
def _known_formats() -> tuple[str, ...]:
    """Those of ``FORMATS`` that this Pillow has; AVIF came with 11.2."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def _refusing_damage() -> Iterator[None]:
    """Turn what the system or Pillow raises into a status and a text, the same everywhere.

    Pillow's readers raise whatever damage makes them raise.
    """
    try:
        yield
    except (ImageError, StoreUnreachableError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"too many pixels: {error}", "too_large") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError("no such file", "missing") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise ImageError(f"cannot be read: {error.strerror}", "unreadable") from error
        text = re.sub(r" at 0x[0-9a-fA-F]+", "", str(error) or type(error).__name__)[:200]
        if isinstance(error, EOFError) or "truncated" in text.lower():
            raise ImageError(f"cut off: {text}", "truncated") from error
        raise ImageError(f"damaged: {text}", "unreadable") from error


_silencing = threading.Lock()
_silenced: "list[warnings.catch_warnings[None]]" = []  # the one in force
_inside = 0  # how many threads are inside


@contextmanager
def _pillow_silenced() -> Iterator[None]:
    """Mute Pillow's warnings (corrupt EXIF data, palette transparency, many pixels).

    What matters in them has a status here. ``warnings.catch_warnings`` alone is not safe with
    threads, which may leave in another order than they came: the first one in sets the filter,
    the last one out takes it away.
    """
    global _inside
    with _silencing:
        if _inside == 0:
            catcher = warnings.catch_warnings()
            catcher.__enter__()
            _silenced.append(catcher)
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _inside += 1
    try:
        yield
    finally:
        with _silencing:
            _inside -= 1
            if _inside == 0:
                _silenced.pop().__exit__(None, None, None)
