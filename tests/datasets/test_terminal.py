"""Text from outside is shown on a terminal, and commands nothing."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from latentset.datasets.terminal import plain, print_text, printable

HOSTILE = [
    "[/x]",
    "[bold]b[/]",
    ":smile:",
    "\x1b[31mred",
    "\x9b2J",
    "a\rb",
    "\u202etxt",
    "\u2066x\u200f",
    "\udc80",
    "\\[b]\\",
    "\x07",
    "a\u2028b",
    "https://x.org 123",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_terminal_sees_the_text_alone(text: str) -> None:
    for show in ("line", "cell", "title"):
        written = io.StringIO()
        console = Console(file=written, force_terminal=True, color_system="truecolor", width=60)
        if show == "line":
            print_text(console, text)
        else:
            title = plain(text) if show == "title" else "title"
            table = Table(title=title, title_style="", show_header=False, box=None)
            table.add_row(plain(text))
            console.print(table)
        output = written.getvalue()
        assert printable(text) in output
        rest = output.replace("\x1b[3m", "").replace("\x1b[0m", "").replace("\n", "")
        assert printable(rest) == rest
        output.encode()


def test_lines_stay_lines() -> None:
    written = io.StringIO()
    print_text(Console(file=written, width=20), "one [a]\n" + "two " * 20 + "\x1b")
    assert written.getvalue() == "one [a]\n" + "two " * 20 + "\N{REPLACEMENT CHARACTER}\n"


def test_other_scripts_stay() -> None:
    text = "grün 猫 кот عربي \N{ZERO WIDTH JOINER} 🐈"
    assert printable(text) == text
