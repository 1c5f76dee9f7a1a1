"""Text from outside on a terminal: names, paths and versions are shown, and command nothing."""

import re

from rich.console import Console
from rich.text import Text

from latentset.datasets.limits import CONTROL

_CONTROL = re.compile(rf"{CONTROL.pattern}|[\u061c\u200e\u200f\u2028\u2029\ud800-\udfff]")
"""What no name may have, and what else breaks lines, turns text around or cannot be written."""


def printable(text: str) -> str:
    """Replace control characters, which would command a terminal, in one line."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def plain(text: str) -> Text:
    """A cell or title that is one line of text: nothing of it is markup or a control character."""
    return Text(printable(text))


def print_text(console: Console, text: str) -> None:
    """Print lines of text: nothing of them is markup or a control character."""
    lines = "\n".join(map(printable, text.split("\n")))
    console.print(lines, markup=False, emoji=False, highlight=False, soft_wrap=True)
