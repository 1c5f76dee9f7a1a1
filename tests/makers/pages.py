"""The blocks of README.md and docs/*.md: which commands they have, and for which environment.

A block of commands is fenced as ``console``. Its lines that begin with a prompt are commands:
``(encode) $``, ``(train) $``, or ``$`` where either environment will do; others are their output.
The comment ``<!-- not run: REASON -->`` above a block keeps the tests from running it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))

_BLOCK = re.compile(r"(?ms)(?:^<!-- not run: ([^\n]+) -->\n)?^```([^\n]*)\n(.*?)^```$")
_COMMAND = re.compile(r"(?m)^(?:\((encode|train)\) )?\$ ((?:.*\\\n)*.*)$")


@dataclass(frozen=True)
class Command:
    """A line that a reader types."""

    environment: str
    """``encode``, ``train``, or empty: either."""
    text: str


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    not_run: str
    """Why the tests do not run it; empty where they do."""

    def commands(self) -> list[Command]:
        """Commands of a block of the language ``console``."""
        found = _COMMAND.findall(self.text)
        return [Command(name, text.replace("\\\n", " ")) for name, text in found]


def read_blocks(page: str) -> list[Block]:
    """All blocks of a page, in order."""
    return list(find_blocks(page, (ROOT / page).read_text(encoding="utf-8")))


def find_blocks(page: str, text: str) -> Iterator[Block]:
    """Yield the blocks in a page's text."""
    for match in _BLOCK.finditer(text):
        reason, language, content = match.groups()
        yield Block(page, text[: match.start()].count("\n") + 1, language, content, reason or "")
