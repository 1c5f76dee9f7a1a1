"""The command `latentset verify`: the checks of datasets/, and the codec's once more on request."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from latentset.datasets.store.verify import Findings
    from latentset.pipeline.recompute import Recomputed

_LABELS_SHOWN = 20
_PROBLEMS_SHOWN = 100


def verify(
    store: Annotated[str, typer.Argument(help="A store's folder, HDF5 file or URL.")],
    recompute: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Encode N random samples again and count symbols that differ."
        ),
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="--recompute: root of the photographs.")
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(help="--recompute: name or file of the codec.", show_default="the store's"),
    ] = None,
    seed: Annotated[int, typer.Option(help="--recompute: which random samples.")] = 0,
) -> None:
    """Read a whole store and check everything in it; exit status 1 if anything is wrong."""
    from rich.console import Console
    from rich.markup import escape

    from latentset.datasets.store.cli import shown_progress
    from latentset.datasets.store.summary import printable
    from latentset.datasets.store.verify import verify as check

    if recompute and source is None:
        raise typer.BadParameter("--recompute needs --source, the root of the photographs")
    if not recompute and (source is not None or codec is not None):
        raise typer.BadParameter("--source and --codec are for --recompute")
    with shown_progress() as report:
        findings = check(store, report)
    recomputed = None
    if recompute and source is not None and findings.samples is not None:
        from latentset.pipeline.recompute import recompute as encode_again

        with shown_progress() as report:
            recomputed = encode_again(store, source, codec, recompute, seed, report)
    console = Console()
    _print(console, findings, recomputed)
    problems = [*findings.problems, *(recomputed.problems if recomputed else ())]
    for problem in problems[:_PROBLEMS_SHOWN]:
        console.print(
            f"[red]wrong:[/] {escape(printable(problem))}", highlight=False, soft_wrap=True
        )
    if len(problems) > _PROBLEMS_SHOWN:
        console.print(f"… and {len(problems) - _PROBLEMS_SHOWN} more")
    name = escape(printable(findings.where))
    if problems:
        count = len(problems)
        console.print(
            f"[bold red]{name} is damaged:[/] {count} problem{'s' if count > 1 else ''}. Fetch it "
            "again, or encode the store again (docs/verify.md)",
            soft_wrap=True,
        )
        raise typer.Exit(1)
    console.print(f"[bold green]{name} is sound.[/]", soft_wrap=True)


def _print(console: object, findings: "Findings", recomputed: "Recomputed | None") -> None:
    """Print what was checked, as tables."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from latentset.datasets.store.summary import format_bytes, make_table, printable

    if not isinstance(console, Console):
        raise TypeError(f"expected a Console, got {console!r}")
    rows = [("read", f"{findings.objects} objects, {format_bytes(findings.bytes)}")]
    if findings.manifest is not None:
        counts = findings.manifest.samples
        rows.append(
            ("samples", f"{counts.total}: {counts.ok} with latents, {counts.failed} failed")
        )
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
