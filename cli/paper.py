"""The commands that reproduce the paper: `report`, `sweep`, `recipes` and `models`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from latentset.cli.console import announce, make_console

MODELS_WIDTH = 108
"""Columns of text that the table of `latentset models` needs."""


def report(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the report.")],
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of runs, or folders that hold such folders. Without: what needs none, "
            "Table 2's networks of the paper and Figures 2, 5."
        ),
    ] = None,
    latents: Annotated[
        list[str] | None,
        typer.Option(metavar="STORE", help="Store of latents, for Figures 2, 5; repeatable."),
    ] = None,
    pixels: Annotated[
        list[str] | None,
        typer.Option(metavar="STORE", help="Store of pixels, for Figures 5, 7; repeatable."),
    ] = None,
    codec_times: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="From `latentset codec time --json`, for Table 2."),
    ] = None,
    sample: Annotated[
        str | None, typer.Option(metavar="ID", help="Image of Figure 5. Default: the first.")
    ] = None,
    skip_timing: Annotated[
        bool, typer.Option("--skip-timing", help="Table 2 without inference times.")
    ] = False,
) -> None:
    """Tabulate and draw runs, as the paper does.

    All runs in results.md and results.csv; the paper's tables and figures, with its numbers
    beside, as far as there are runs and stores for them.
    """
    announce("loading PyTorch")
    from latentset.datasets.terminal import print_text
    from latentset.paper.report.page import PAGE, write_report
    from latentset.paper.report.results import make_table
    from latentset.paper.report.runs import NO_RUNS

    written = write_report(
        runs or (),
        out,
        latents=latents or (),
        pixels=pixels or (),
        codec_times=codec_times,
        sample=sample,
        timing=not skip_timing,
    )
    console = make_console()
    if written.lines:
        console.print(make_table(written.lines, console.width))
    for reason in written.left_out:
        print_text(console, f"left out: {reason}")
    remarks: dict[tuple[bool, str], list[str]] = {}
    for name, part in written.parts.items():
        if part.remark and part.remark != NO_RUNS:
            remarks.setdefault((bool(part.files), part.remark), []).append(name)
    for (there, remark), names in remarks.items():
        line = f"{'' if there else 'no '}{', '.join(names)}: {remark}"
        print_text(console, line)
    files = [file for part in written.parts.values() for file in part.files]
    tables = ["results.csv", "results.md", "accuracy.png"] if written.lines else []
    written_files = ", ".join([PAGE, *tables, *files])
    print_text(console, f"written: {out}/{written_files}")


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Print this one as the text of its file.")
    ] = None,
) -> None:
    """List the recipes that ship, or print one."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from latentset.paper.recipes import recipe_files, recipe_lines, recipe_text

    if name is not None:
        typer.echo(recipe_text(name), nl=False)
        return
    written = recipe_files()
    general = [line[:2] for line in recipe_lines() if line[0] in written]
    others = [line for line in recipe_lines() if line[0] not in written]
    for titles, rows in (
        (("recipe", "for any images, and for the demo"), general),
        (("recipe", "what it reproduces", "paper's top-1 %"), others),
    ):
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for title in titles:
            table.add_column(title, no_wrap=title == "recipe")
        for row in rows:
            table.add_row(*row)
        make_console().print(table)


def sweep(
    table: Annotated[str, typer.Argument(help="Such as minc2500/table1, trashnet/table3.")],
    out: Annotated[Path, typer.Option(help="Folder of runs: RUNS/RECIPE/seed-SEED.")],
    store: Annotated[
        list[str] | None,
        typer.Option(
            help="A store; repeat for each. Which recipe each is for is in its header. What is "
            "missing is listed, with the commands that make it."
        ),
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seed; repeatable. Default: 0.")] = None,
    only: Annotated[
        str,
        typer.Option(
            metavar="GLOB", help="Recipes to train, with those they are initialised from."
        ),
    ] = "*",
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a key of all recipes; repeatable."),
    ] = None,
    latent_settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set-latents",
            metavar="KEY=VALUE",
            help="Set a key of the recipes of latents; the anchors stay as they are. Repeatable.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the commands, and train nothing.")
    ] = False,
) -> None:
    """Train the recipes of a table or figure of the paper.

    Finished runs are left as they are.
    """
    announce("loading PyTorch")
    from latentset.paper.sweep import plan_sweep
    from latentset.paper.sweep_run import Sweep

    planned = plan_sweep(
        table,
        store or (),
        out,
        seeds=seed or (0,),
        only=only,
        settings=settings or (),
        latent_settings=latent_settings or (),
    )
    if dry_run:
        for job in planned:
            typer.echo(f"{job.command}{'  # is finished' if job.is_finished() else ''}")
        return
    Sweep(planned, jobs, make_console()).run()


def models(
    channels: Annotated[
        int, typer.Option(help="Channels C of the codec: 192, or 320 for quality 8.", min=1)
    ] = 192,
    classes: Annotated[int, typer.Option(help="Number of classes.", min=1)] = 23,
    n: Annotated[
        str,
        typer.Option(
            help="Depth of the FEU in layers 2 to 4; in the paper 2/3/4 for quality 1, else 3/4/5."
        ),
    ] = "2/3/4",
    depth: Annotated[int, typer.Option(help="The ResNet: 18, 34, 50, 101 or 152.")] = 50,
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="FILE", help="Write the table here too; - for stdout alone."
        ),
    ] = None,
) -> None:
    """List the networks, with parameters and mult-adds.

    Sizes are of one sample of 28x28 latents, or 224x224 pixels. A star marks the default.
    """
    from latentset.datasets.errors import RecipeError

    try:
        depths_n = tuple(int(part) for part in n.split("/"))
    except ValueError as error:
        raise RecipeError(f"--n: expected three numbers such as 2/3/4, got {n!r}") from error
    from rich.markup import escape
    from rich.table import Table

    from latentset.datasets.storage.atomic import write_atomically
    from latentset.datasets.store.target_checks import check_output

    announce("measuring the networks, about 15 seconds")
    from latentset.paper.network_cost import measure_settings

    if json_file not in (None, "-"):
        check_output(Path(json_file))
    found = list(measure_settings(channels, classes, depths_n, depth))
    rows = [
        size.model_dump()
        | {
            "group": setting.group,
            "name": setting.name,
            "title": setting.title,
            "default": setting.default,
            "assignments": setting.assignments,
            "model": network.model_dump(exclude_none=True),
        }
        for setting, network, size in found
    ]
    text = json.dumps(rows, indent=1, ensure_ascii=False)
    if json_file == "-":
        typer.echo(text)
        return
    if json_file is not None:
        write_atomically(Path(json_file), text + "\n")
    table = Table(title=f"ResNet-{depth}, C = {channels}, {classes} classes, n = {n}", box=None)
    for title in ("setting", "parameters", "mult-adds", "pass", "--set"):
        right = title in ("parameters", "mult-adds", "pass")
        table.add_column(title, justify="right" if right else "left", no_wrap=True)
    group = None
    for setting, _, size in found:
        if setting.group != group:
            group = setting.group
            table.add_row(f"[bold]{group}[/]")
        table.add_row(
            f"  {setting.title}" + (" *" if setting.default else ""),
            f"{size.parameters:,}",
            f"{size.mult_adds / 1e9:.3f} G",
            f"{size.pass_bytes / 1e6:.2f} MB",
            escape(" ".join(setting.assignments)),
        )
    make_console(at_least=MODELS_WIDTH).print(table)
