"""The most that a store may claim (docs/store-spec.md, 9), checked when its texts are parsed.

The numbers are far beyond what stores need. They bound the memory and the time that a reader spends
on a store before it finds that what the store claims is wrong.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

MAX_TEXT_BYTES = 1024
"""UTF-8 bytes of a name: of a class, a codec, a tensor, a version, a device."""

MAX_CLASSES = 1_000_000

MAX_SAMPLES = 1 << 30

MAX_SHARDS_READ = 20_000
"""Twice what a job writes (layout.MAX_SHARDS); retries may append some."""

MAX_CHANNELS = 1 << 16

MAX_SCALE = 1e6

MAX_CHUNK_BYTES = 1 << 30
"""Largest chunk of an array that is read, bytes before compression: ten thousand times the usual
one."""

MAX_SHARD_BYTES = 1 << 31
"""Largest shard of an array that is read, bytes before compression: 64 times the usual one."""

MAX_TABLE_BYTES = 1 << 31
"""Of ``samples.parquet``: some 30 million samples."""

MAX_SWELLING = 32
"""The samples table takes at most so many bytes in memory for each stored byte, some five usually;
``SMALL_TABLE_BYTES`` are allowed in any case."""

SMALL_TABLE_BYTES = 64 << 20

MAX_SAMPLE_TEXT_BYTES = 1 << 14
"""UTF-8 bytes of a text in the samples table. Linux has paths of at most 4096."""

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What moves the cursor, colours the terminal or turns text around."""


def check_text(text: str) -> str:
    """Raise a ValueError if a text is no name: too long, with control characters, not Unicode."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(f"expected Unicode, got {text!r:.80}") from None
    if size > MAX_TEXT_BYTES:
        raise ValueError(f"expected at most {MAX_TEXT_BYTES} bytes, got {size}: {text!r:.80}")
    if CONTROL.search(text):
        raise ValueError(f"expected no control characters, got {text!r:.80}")
    return text


Text = Annotated[str, AfterValidator(check_text)]
"""A name, a version: one line."""

Count = Annotated[int, Field(ge=0, lt=1 << 53)]
"""A number of bytes, rows or samples; every JSON reader takes it without rounding."""

ShardIndex = Annotated[int, Field(ge=0, lt=MAX_SHARDS_READ)]
