"""Files that are named like images and cannot be read, and one that can."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def write_odd_images(folder: Path, side: int = 192) -> dict[str, str]:
    """Write ``good.png`` and files that each fail in another way; their statuses by name."""
    folder.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    good = folder / "good.png"
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(good)
    (folder / "cut.png").write_bytes(good.read_bytes()[:2000])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.jpg").write_text("<html>not found</html>")
    (folder / "bomb.png").write_bytes(_grey_png(60_000))
    comment = b"Comment\0\0" + zlib.compress(b"a" * 3_000_000)
    (folder / "text.png").write_bytes(_grey_png(side, _chunk(b"zTXt", comment)))
    os.mkfifo(folder / "pipe.jpg")
    return {
        "bomb.png": "too_large",
        "cut.png": "truncated",
        "empty.jpg": "empty",
        "page.jpg": "not_an_image",
        "pipe.jpg": "unreadable",
        "text.png": "unreadable",
    }


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _grey_png(side: int, *more: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (side + 1) * min(side, 200))
    parts = (_chunk(b"IHDR", header), *more, _chunk(b"IDAT", rows), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
