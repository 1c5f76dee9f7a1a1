"""The command `latentset verify`: the checks of datasets/, and the codec's once more on request."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from latentset.datasets.store.findings import Findings
    from latentset.pipeline.recompute import Prepared, Recomputed

_LABELS_SHOWN = 20
_LINES_SHOWN = 100


def verify(
    store: Annotated[str, typer.Argument(help="A store's folder, HDF5 file or URL.")],
    recompute: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Encode N random samples again and count symbols that differ."
        ),
    ] = None,
    source: Annotated[Path | None, typer.Option(help="--recompute: root of the images.")] = None,
    codec: Annotated[
        str | None,
        typer.Option(help="--recompute: name or file of the codec.", show_default="the store's"),
    ] = None,
    seed: Annotated[int, typer.Option(help="--recompute: which random samples.")] = 0,
) -> None:
    """Read a whole store and check everything in it.

    Exit status: 0 if it is sound, 1 if anything is wrong, 2 if something could not be checked or
    the store is not complete.
    """
    from rich.console import Console
    from rich.markup import escape

    from latentset.cli.store import shown_progress
    from latentset.datasets.store.summary import printable
    from latentset.datasets.store.verify import verify as check

    if recompute and source is None:
        raise typer.BadParameter("--recompute needs --source, the root of the images")
    if not recompute and (source is not None or codec is not None):
        raise typer.BadParameter("--source and --codec are for --recompute")
    prepared = None
    if recompute and source is not None:  # before the store is read, which may take an hour
        prepared = _prepare(store, source, codec, recompute, seed)
    with shown_progress() as report:
        findings = check(store, report)
    recomputed = None
    if prepared is not None:
        from latentset.pipeline.recompute import recompute as encode_again

        with shown_progress() as report:
            recomputed = encode_again(prepared, report)
    elif recompute:
        findings.notes.append("no sample was encoded again: the store cannot be opened")
    console = Console()
    _print(console, findings, recomputed)
    _list(console, "red", "wrong", findings.problems)
    _list(console, "yellow", "not checked", findings.obstacles)
    if recomputed is not None:
        _list(console, "red", "differs", recomputed.problems)
        _list(console, "yellow", "differs", recomputed.explained)
        _list(console, "yellow", "not compared", recomputed.not_compared)
    colour, verdict, status = _conclude(findings, recomputed)
    name = escape(printable(findings.where))
    console.print(f"[bold {colour}]{name} {verdict}[/]", soft_wrap=True, highlight=False)
    raise typer.Exit(status)


def _prepare(
    store: str, source: Path, codec: str | None, count: int, seed: int
) -> "Prepared | None":
    """Look at images and codec; None if the store cannot be opened, which verify reports."""
    from latentset.datasets.errors import CodecError, LatentSetError, SourceError, StoreError
    from latentset.datasets.store import open_store
    from latentset.datasets.store.summary import printable

    try:
        opened = open_store(store)
    except StoreError:
        return None
    wrong: LatentSetError
    try:
        from latentset.pipeline.recompute import prepare

        return prepare(opened, source, codec, count, seed)
    except ModuleNotFoundError as error:
        raise typer.BadParameter(
            f"--recompute needs {error.name}, which this environment lacks: run it in the "
            "environment that encodes (README, Install)"
        ) from error
    except StoreError as error:
        wrong, option = error, "--recompute"
    except SourceError as error:
        wrong, option = error, "--source"
    except CodecError as error:
        wrong, option = error, "--codec"
    raise typer.BadParameter(printable(str(wrong)), param_hint=option) from wrong


def _list(console: "Console", colour: str, title: str, lines: list[str]) -> None:
    """Print lines about single objects or samples, and how many are left out."""
    from rich.markup import escape

    from latentset.datasets.store.summary import printable

    for line in lines[:_LINES_SHOWN]:
        text = escape(printable(line))
        console.print(f"[{colour}]{title}:[/] {text}", highlight=False, soft_wrap=True)
    if len(lines) > _LINES_SHOWN:
        console.print(f"[{colour}]{title}:[/] … and {len(lines) - _LINES_SHOWN} more")


def _conclude(findings: "Findings", recomputed: "Recomputed | None") -> tuple[str, str, int]:
    """Say what it comes to: a colour, the rest of a sentence about the store, an exit status."""
    match findings.outcome:
        case "damaged":
            count = len(findings.problems)
            return (
                "red",
                f"is damaged: {count} problem{'s' if count > 1 else ''}. Fetch it again, or "
                "encode the store again (docs/verify.md)",
                1,
            )
        case "not checked" if not findings.is_complete:
            return "yellow", "is not complete; nothing that was read is wrong.", 2
        case "not checked":
            return "yellow", "could not be checked, or not all of it (above).", 2
    if recomputed is not None and recomputed.problems:
        why = (
            "It is more than rounding, which the other software here (above) would explain"
            if recomputed.software
            else "Encode the store again if nobody can say why"
        )
        count = len(recomputed.problems)
        samples = f"{count} sample{'s are' if count > 1 else ' is'}"
        return "red", f"is as it was written, but {samples} not what its codec gives. {why}.", 1
    if recomputed is not None and recomputed.explained:
        count = len(recomputed.explained)
        return (
            "yellow",
            f"is as it was written. {count} of its samples differ here by symbols at a "
            "rounding boundary, which is no damage: other software or another CPU computes here "
            "(above). To compare exactly, run it where the store was made.",
            2,
        )
    if recomputed is not None and recomputed.not_compared:
        count = len(recomputed.not_compared)
        return "yellow", f"is sound; {count} of its samples could not be encoded again.", 2
    return "green", "is sound.", 0


def _print(console: "Console", findings: "Findings", recomputed: "Recomputed | None") -> None:
    """Print what was checked, as tables."""
    from rich.markup import escape
    from rich.table import Table

    from latentset.datasets.store.summary import format_bytes, make_table, printable

    rows = [("read", f"{findings.objects} objects, {format_bytes(findings.bytes)}")]
    if findings.manifest is not None:
        counts = findings.manifest.samples
        noun = findings.header.noun if findings.header else "latents"
        rows.append(("samples", f"{counts.total}: {counts.ok} with {noun}, {counts.failed} failed"))
        rows.append(("shards", str(len(findings.manifest.shards))))
        rows.append(("fingerprint", findings.manifest.fingerprint))
    rows += [("note", note) for note in findings.notes]
    if recomputed is not None:
        rows += recomputed.rows()
    console.print(make_table(findings.where, rows))
    histogram = findings.histogram()
    if histogram:
        table = Table(title="samples by label and split", title_justify="left")
        table.add_column("label")
        for split in histogram[0][1]:
            table.add_column(escape(printable(split)), justify="right")
        for name, counted in histogram[:_LABELS_SHOWN]:
            table.add_row(escape(printable(name)), *(str(count) for count in counted.values()))
        if len(histogram) > _LABELS_SHOWN:
            table.add_row(f"… {len(histogram) - _LABELS_SHOWN} more")
        console.print(table)
