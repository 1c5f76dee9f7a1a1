"""Markdown from texts that somebody else wrote: names in a store are never markup."""

import re
from collections.abc import Sequence

from latentset.datasets.terminal import printable

_PLAIN = re.compile(r"[\w ,.:;%()/+=…'-]*")
"""What Markdown and HTML give no meaning to inside a line."""

_ACTIVE = re.compile(r"\b_|_\b|//|[^\W\d]\.[^\W\d]")
"""Emphasis, and addresses, which some renderers turn into links."""


def clean(text: str, limit: int = 300) -> str:
    """One line of at most ``limit`` characters that UTF-8 has, without control characters."""
    text = text[: limit + 1].encode("utf-8", "replace").decode()
    text = " ".join(printable(text).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def inline(text: str, limit: int = 300) -> str:
    """A text inside a line or a table's cell: as it is, or as code where it could be markup."""
    text = clean(text, limit)
    return text if _PLAIN.fullmatch(text) and not _ACTIVE.search(text) else code(text, limit)


def code(text: str, limit: int = 300) -> str:
    """A text as code, where nothing has a meaning but its end, and in a table the bar."""
    text = clean(text, limit) or " "
    return f"`{text.replace('`', chr(0x2BC)).replace('|', chr(0xA6))}`"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 0) -> str:
    """Write a table whose cells are Markdown; the last ``numbers`` columns are aligned right."""
    rule = ["---"] * (len(titles) - numbers) + ["---:"] * numbers
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (titles, rule, *rows))
