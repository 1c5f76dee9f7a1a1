"""The commands `latentset inspect` and `latentset convert`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from latentset.datasets.store.formats import Format

_FAILED_SHOWN = 5


def inspect(
    store: Annotated[
        str, typer.Argument(help="A store's folder, HDF5 file or URL, complete or not.")
    ],
) -> None:
    """Print what a store holds."""
    from rich.console import Console
    from rich.markup import escape

    from latentset.datasets.errors import StoreIncompleteError
    from latentset.datasets.store import open_store
    from latentset.datasets.store.summary import failed_lines, make_table, summarise

    try:
        opened = open_store(store)
    except StoreIncompleteError:
        opened = open_store(store, allow_incomplete=True)
    console = Console()
    console.print(make_table(opened.location.name, summarise(opened)))
    for line in failed_lines(opened, _FAILED_SHOWN):
        console.print(escape(line), highlight=False)


def convert(
    source: Annotated[str, typer.Argument(help="A store's folder, HDF5 file or URL.")],
    target: Annotated[str, typer.Argument(help="Where to write it; nothing may be there.")],
    format: Annotated[
        Format | None,
        typer.Option(
            help="Zarr objects or one HDF5 file.", show_default="HDF5 if TARGET ends in .h5, .hdf5"
        ),
    ] = None,
) -> None:
    """Write a store again in the other format, and prove that both are equal."""
    from rich.console import Console
    from rich.markup import escape

    from latentset.datasets.storage.location import open_location
    from latentset.datasets.store import open_store
    from latentset.datasets.store.convert import convert as run
    from latentset.datasets.store.formats import choose_format
    from latentset.datasets.store.summary import format_bytes

    opened, location = open_store(source), open_location(target)
    with shown_progress() as report:
        chosen = choose_format(location, format)
        written = run(opened, location, chosen, report)
    before, after = (sum(store.stored_bytes().values()) for store in (opened, written))
    Console().print(
        f"{escape(str(location))}: {opened.samples.num_rows} samples in {format_bytes(after)} "
        f"({after / before:.2f} times {escape(opened.location.name)}); read back, and equal to it",
        soft_wrap=True,
        highlight=False,
    )


@contextmanager
def shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar on a terminal, and nothing elsewhere; yields a ``Report``."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    tasks: dict[str, TaskID] = {}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what)
            progress.update(tasks[what], completed=done, total=total)

        yield report
