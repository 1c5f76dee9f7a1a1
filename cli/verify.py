"""The command `latentset verify`: the checks of datasets/, and the codec's once more on request."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentset.cli.console import JsonOption, announce, make_console, print_json

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
    source: Annotated[
        str | None,
        typer.Option(
            help="--recompute: root of the images, a folder, s3://… or gs://….",
            show_default="where STORE.job says it was",
        ),
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(help="--recompute: name or file of the codec.", show_default="the store's"),
    ] = None,
    seed: Annotated[int, typer.Option(help="--recompute: which random samples.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Read a whole store and check everything in it.

    Exit status: 0 if it is sound, 1 if anything is wrong, 2 if something could not be checked or
    the store is not complete.
    """
    from rich.markup import escape

    from latentset.cli.store import shown_progress
    from latentset.datasets.store.verify import verify as check
    from latentset.datasets.terminal import printable

    if not recompute and (source is not None or codec is not None):
        raise typer.BadParameter("--source and --codec are for --recompute")
    prepared = None
    if recompute:  # before the store is read, which may take an hour
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
    colour, verdict, status = _conclude(findings, recomputed)
    if as_json:
        print_json({**_describe(findings, recomputed), "verdict": verdict, "exit_status": status})
        raise typer.Exit(status)
    console = make_console()
    _print(console, findings, recomputed)
    _list(console, "red", "wrong", findings.problems)
    _list(console, "yellow", "not checked", findings.obstacles)
    if recomputed is not None:
        _list(console, "red", "differs", recomputed.problems)
        _list(console, "yellow", "differs", recomputed.explained)
        _list(console, "yellow", "not compared", recomputed.not_compared)
    name = escape(printable(findings.where))
    console.print(f"[bold {colour}]{name} {verdict}[/]", soft_wrap=True, highlight=False)
    raise typer.Exit(status)


def _prepare(
    store: str, source: str | None, codec: str | None, count: int, seed: int
) -> "Prepared | None":
    """Look at images and codec; None if the store cannot be opened, which verify reports."""
    from latentset.datasets.errors import CodecError, LatentSetError, SourceError, StoreError
    from latentset.datasets.sources import open_root
    from latentset.datasets.store import open_store
    from latentset.datasets.terminal import printable

    try:
        opened = open_store(store)
    except StoreError:
        return None
    wrong: LatentSetError
    try:
        from latentset.pipeline.jobs.plan import find_root
        from latentset.pipeline.recompute import prepare

        if source is None:
            source = find_root(opened)
            if source is None:
                raise SourceError(
                    "expected the root of the images: --recompute needs it, and no job of this "
                    f"store (such as {opened.location.name}.job) names it"
                )
            announce(f"images: {printable(source)}, which {opened.location.name}.job names")
        return prepare(opened, open_root(source), codec, count, seed)
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

    from latentset.datasets.terminal import printable

    for line in lines[:_LINES_SHOWN]:
        text = escape(printable(line))
        console.print(f"[{colour}]{title}:[/] {text}", highlight=False, soft_wrap=True)
    if len(lines) > _LINES_SHOWN:
        console.print(f"[{colour}]{title}:[/] … and {len(lines) - _LINES_SHOWN} more")


def _describe(findings: "Findings", recomputed: "Recomputed | None") -> dict[str, Any]:
    """The report for programs (docs/verify.md)."""
    manifest = findings.manifest
    return {
        "store": findings.where,
        "outcome": findings.outcome,
        "complete": findings.is_complete,
        "fingerprint": manifest.fingerprint if manifest else None,
        "samples": manifest.samples.model_dump() if manifest else None,
        "objects": findings.objects,
        "bytes": findings.bytes,
        "problems": findings.problems,
        "obstacles": findings.obstacles,
        "notes": findings.notes,
        "recomputed": asdict(recomputed) if recomputed else None,
    }


def _conclude(findings: "Findings", recomputed: "Recomputed | None") -> tuple[str, str, int]:
    """Say what it comes to: a colour, the rest of a sentence about the store, an exit status."""
    match findings.outcome:
        case "damaged":
            count = len(findings.problems)
            plural = "s" if count > 1 else ""
            text = (
                f"is whole, but holds {count} object{plural} that are no part of it: remove them"
                if count == findings.extra
                else f"is damaged: {count} problem{plural}. Fetch it again, or encode the store "
                "again"
            )
            return "red", f"{text} (docs/verify.md)", 1
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

    from latentset.datasets.store.summary import format_bytes, make_table
    from latentset.datasets.terminal import printable

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
