"""The command `latentset inspect`."""

from typing import Annotated

import typer

_FAILED_SHOWN = 5


def inspect(
    store: Annotated[str, typer.Argument(help="A store's folder or URL, complete or not.")],
) -> None:
    """Print what a store holds."""
    from rich.console import Console
    from rich.markup import escape

    from latentset.datasets.errors import StoreIncompleteError
    from latentset.datasets.store.reader import open_store
    from latentset.datasets.store.summary import failed_lines, make_table, summarise

    try:
        opened = open_store(store)
    except StoreIncompleteError:
        opened = open_store(store, allow_incomplete=True)
    summary = summarise(opened)
    console = Console()
    console.print(make_table(opened.place.name, [*summary.content, *summary.size, *summary.origin]))
    for line in failed_lines(opened, _FAILED_SHOWN):
        console.print(escape(line), highlight=False)
