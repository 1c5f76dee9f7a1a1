"""The command `latentset encode`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from latentset.pipeline.encoding.job import EncodeResult

_FAILED_SHOWN = 5


class Kind(StrEnum):
    """Layouts of a source."""

    auto = "auto"
    imagefolder = "imagefolder"
    minc2500 = "minc2500"
    imagenet = "imagenet"
    list = "list"


class OnError(StrEnum):
    """What to do about a photograph that cannot be encoded."""

    record = "record"
    fail = "fail"


def encode(
    source: Annotated[Path, typer.Argument(help="Folder of photographs, or a CSV/Parquet list.")],
    store: Annotated[
        Path, typer.Argument(help="Folder to make. The same command goes on with it.")
    ],
    codec: Annotated[str, typer.Option(help="Name or file of a codec; see: latentset codec list.")],
    resize: Annotated[
        str, typer.Option(help="none, short:N (shorter side), exact:HxW or exact:N.")
    ] = "none",
    source_kind: Annotated[Kind, typer.Option(help="Layout of SOURCE.")] = Kind.auto,
    minc_split: Annotated[
        int | None, typer.Option(help="minc2500: which split, 1 to 5.", show_default="1")
    ] = None,
    devkit: Annotated[
        Path | None, typer.Option(help="imagenet, flat val folder: devkit or ground-truth .txt.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="list: folder that its paths are relative to.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a running Dask scheduler.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Local processes.", show_default="one a core")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images a batch, at most.")] = 32,
    on_error: Annotated[
        OnError, typer.Option(help="A photograph that cannot be encoded: record it, or stop.")
    ] = OnError.record,
    sigma_hat: Annotated[
        bool, typer.Option("--sigma-hat", help="Store sigma_hat as float16 as well.")
    ] = False,
    shard_mib: Annotated[
        int, typer.Option(min=1, max=1024, help="MiB of y_hat a shard, before compression.")
    ] = 32,
) -> None:
    """Encode photographs into a store, or go on where an earlier run of the command stopped."""
    from latentset.datasets.photographs import ResizeRule
    from latentset.datasets.sources import open_source
    from latentset.pipeline.encoding.job import encode as run
    from latentset.pipeline.encoding.progress import choose_view

    if scheduler is not None and workers is not None:
        raise typer.BadParameter("--workers is for local processes, --scheduler for a running one")
    if source.is_dir() and store.resolve().is_relative_to(source.resolve()):
        raise typer.BadParameter(
            f"STORE {store} lies inside SOURCE {source}, and would be listed with the photographs; "
            "name a folder elsewhere"
        )
    view = choose_view()
    rule = ResizeRule.parse(resize)
    try:
        listed = open_source(
            source, source_kind.value, minc_split=minc_split, devkit=devkit, root=root
        )
        result = run(
            listed,
            store,
            codec,
            resize=rule,
            scheduler=scheduler,
            workers=workers,
            batch=batch,
            on_error=on_error.value,
            sigma_hat=sigma_hat,
            shard_bytes=shard_mib << 20,
            view=view,
        )
    except KeyboardInterrupt:
        view.say("Stopped. Finished shards are kept: the same command goes on from there.")
        raise typer.Exit(130) from None
    _summarise(store, result)


def _summarise(store: Path, result: "EncodeResult") -> None:
    """Print what came out."""
    from rich.console import Console
    from rich.markup import escape

    from latentset.datasets.store.summary import failed_lines, make_table, summarise

    console = Console()
    if result.was_complete:
        console.print(f"{escape(str(store))} is complete already; nothing to do.")
        return
    summary = summarise(result.store)
    rows = [("encoded in this run", f"{result.encoded} images in {result.seconds:.1f} s")]
    if result.seconds > 0 and result.encoded:
        rows.append(("speed", f"{result.encoded / result.seconds:.1f} images/s"))
    if result.reused:
        rows.append(("from earlier runs", f"{result.reused} images"))
    console.print(make_table(f"{store.name} is complete", [*summary.brief(), *rows]))
    for line in failed_lines(result.store, _FAILED_SHOWN):
        console.print(escape(line), highlight=False)
