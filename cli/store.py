"""The commands `latentset inspect` and `latentset convert`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from latentset.cli.console import JsonOption, announce, make_console, print_json
from latentset.datasets.store.formats import Format

_FAILED_SHOWN = 5


def parse_bytes(text: str) -> int:
    """A number of bytes: ``256MiB``, ``1.5GB``, ``1000000``."""
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise typer.BadParameter(f"expected bytes, for instance 256MiB, got {text!r}") from None


def parse_shard_bytes(text: str) -> int:
    """The size of a shard, 1 MiB to 1 GiB."""
    size = parse_bytes(text)
    if not 1 << 20 <= size <= 1 << 30:
        raise typer.BadParameter(f"expected 1MiB to 1GiB, got {text!r}")
    return size


CacheOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder in which shards of a store on the web or in object storage are kept.",
        show_default="LATENTSET_CACHE, or the user's",
    ),
]

CacheBytesOption = Annotated[
    int | None,
    typer.Option(
        parser=parse_bytes,
        metavar="SIZE",
        help="Size of the cache at most, for instance 200GiB; other stores leave it first.",
        show_default="what the disk has room for",
    ),
]


def inspect(
    store: Annotated[
        str, typer.Argument(help="A store's folder, HDF5 file or URL, complete or not.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Print what a store holds."""
    from latentset.datasets.errors import StoreIncompleteError
    from latentset.datasets.store import open_store
    from latentset.datasets.store.summary import (
        failed_lines,
        make_table,
        store_json,
        summarise,
    )
    from latentset.datasets.terminal import print_text

    try:
        opened = open_store(store)
    except StoreIncompleteError:
        opened = open_store(store, allow_incomplete=True)
    if as_json:
        print_json(store_json(opened))
        return
    console = make_console()
    console.print(make_table(opened.location.name, summarise(opened)))
    for line in failed_lines(opened, _FAILED_SHOWN):
        print_text(console, line)


def convert(
    source: Annotated[str, typer.Argument(help="A store's folder, HDF5 file or URL.")],
    target: Annotated[str, typer.Argument(help="Where to write it; nothing may be there.")],
    format: Annotated[
        Format | None,
        typer.Option(
            help="Zarr objects or one HDF5 file.", show_default="HDF5 if TARGET ends in .h5, .hdf5"
        ),
    ] = None,
    shard_bytes: Annotated[
        int | None,
        typer.Option(
            parser=parse_shard_bytes,
            metavar="SIZE",
            help="Size of a shard of y_hat before compression, for instance 256MiB.",
            show_default="the shards of SOURCE",
        ),
    ] = None,
    cache: CacheOption = None,
    cache_bytes: CacheBytesOption = None,
) -> None:
    """Write a store in the other format or other shards.

    What is written is read back and compared with the store.
    """
    from latentset.datasets.storage.location import open_location
    from latentset.datasets.store import open_store
    from latentset.datasets.store.convert import convert as run
    from latentset.datasets.store.formats import choose_format
    from latentset.datasets.store.summary import format_bytes
    from latentset.datasets.terminal import print_text

    opened = open_store(source, cache=cache, cache_bytes=cache_bytes)
    location = open_location(target)
    with shown_progress() as report:
        chosen = choose_format(location, format)
        written = run(opened, location, chosen, report, shard_bytes=shard_bytes)
    before, after = (sum(store.stored_bytes().values()) for store in (opened, written))
    print_text(
        make_console(),
        f"{location}: {opened.samples.num_rows} samples in {format_bytes(after)} "
        f"({after / before:.2f} times {opened.location.name}) and {written.header.layout.shards} "
        f"shards (before: {opened.header.layout.shards}); read back, and equal to it",
    )


@contextmanager
def shown_progress(*, in_bytes: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar on a terminal, elsewhere each stage's name; yields a ``Report``."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    percent = TextColumn("{task.percentage:>3.0f} %")
    columns: list[ProgressColumn] = (
        [DownloadColumn(), TransferSpeedColumn()] if in_bytes else [percent]
    )

    console = make_console(stderr=True)
    tasks: dict[str, TaskID] = {}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what)
                if not console.is_terminal:
                    announce(what)
            progress.update(tasks[what], completed=done, total=total)

        yield report
