"""Where commands print: terminals at their width; files and pipes without wrapped lines."""

import json
import os
import sys
from io import TextIOWrapper
from typing import Annotated

import typer
from rich.console import Console

_UNWRAPPED = 10_000
"""Columns of a file or a pipe."""


def make_console(*, stderr: bool = False, at_least: int = 0) -> Console:
    """A console of standard output or error, of ``at_least`` so many columns.

    COLUMNS sets the width of terminals, files and pipes alike.
    """
    console = Console(stderr=stderr)
    wrapped = console.is_terminal or "COLUMNS" in os.environ
    console.width = max(console.width, at_least) if wrapped else _UNWRAPPED
    return console


JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object to standard output, nothing else.")
]


def print_json(value: object) -> None:
    """Print a value of JSON in ASCII: nothing in it commands a terminal."""
    typer.echo(json.dumps(value, indent=1, allow_nan=False))


def escape_unencodable() -> None:
    """Print escapes for what the terminal's encoding lacks; a strict ASCII one would raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def announce(text: str) -> None:
    """Print a line to standard error before something that takes seconds, such as an import."""
    print(text, file=sys.stderr, flush=True)
