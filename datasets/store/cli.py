"""The command `latentset inspect`."""

from pathlib import Path
from typing import Annotated

import typer

_FAILED_SHOWN = 5


def inspect(
    store: Annotated[Path, typer.Argument(help="A store's folder, complete or not.")],
) -> None:
    """Print what a store holds."""
    from rich.console import Console
    from rich.markup import escape

    from latentset.datasets.store.manifest import MANIFEST
    from latentset.datasets.store.reader import open_store
    from latentset.datasets.store.summary import failed_lines, make_table, summarise

    opened = open_store(store, allow_incomplete=not (store / MANIFEST).exists())
    summary = summarise(opened)
    console = Console()
    console.print(
        make_table(store.absolute().name, [*summary.content, *summary.size, *summary.origin])
    )
    for line in failed_lines(opened, _FAILED_SHOWN):
        console.print(escape(line), highlight=False)
