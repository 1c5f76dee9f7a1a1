"""The command `latentset models`."""

import json
from pathlib import Path
from typing import Annotated

import typer

WIDTH = 108
"""Columns of text that the table needs."""


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
    """List the paper's networks and all settings of Table 3, with Table 2's sizes.

    Sizes are of one sample of 28x28 latents, or 224x224 pixels. A star marks the default.
    """
    from latentset.datasets.errors import RecipeError

    try:
        depths_n = tuple(int(part) for part in n.split("/"))
    except ValueError as error:
        raise RecipeError(f"--n: expected three numbers such as 2/3/4, got {n!r}") from error
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from latentset.train.models.sizes import measure_settings
    from latentset.train.run.run_files import write_text

    found = list(measure_settings(channels, classes, depths_n, depth))
    text = json.dumps([one.model_dump() for one in found], indent=1, ensure_ascii=False)
    if json_file == "-":
        typer.echo(text)
        return
    if json_file is not None:
        write_text(Path(json_file), text + "\n")
    table = Table(title=f"ResNet-{depth}, C = {channels}, {classes} classes, n = {n}", box=None)
    for title in ("setting", "parameters", "mult-adds", "pass", "--set"):
        right = title in ("parameters", "mult-adds", "pass")
        table.add_column(title, justify="right" if right else "left", no_wrap=True)
    group = None
    for one in found:
        if one.group != group:
            group = one.group
            table.add_row(f"[bold]{group}[/]")
        table.add_row(
            f"  {one.title}" + (" *" if one.default else ""),
            f"{one.parameters:,}",
            f"{one.mult_adds / 1e9:.3f} G",
            f"{one.pass_bytes / 1e6:.2f} MB",
            escape(" ".join(one.assignments)),
        )
    Console(width=max(Console().width, WIDTH)).print(table)
