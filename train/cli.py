"""The commands `latentset train`, `evaluate` and `report`."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="Path of a recipe, or name of one that ships (trashnet/fa-cresnet-slim)."
        ),
    ],
    store: Annotated[
        str | None, typer.Option(help="The store; short for --set data.store=STORE.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the recipe; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run. Default: runs/RECIPE/CODEC/seed-SEED."),
    ] = None,
) -> None:
    """Train a classifier from a store, or go on where the same command stopped."""
    from rich import get_console

    from latentset.train.recipe_file import load_recipe

    given = [] if store is None else [f"data.store={store}"]
    loaded = load_recipe(recipe, [*(settings or []), *given])
    from latentset.train.fit import fit  # heavy: a mistake in the recipe is answered before

    console = get_console()  # the one that Lightning's progress bar draws on
    result = fit(loaded, out, console=console)
    for title, figures in (("best epoch", result["best"]), ("last epoch", result["last"])):
        if figures and figures["val_top1"] is not None:
            console.print(
                f"{title} {figures['epoch']}: val top-1 {100 * figures['val_top1']:.2f} %, "
                f"top-5 {100 * figures['val_top5']:.2f} %",
                highlight=False,
                soft_wrap=True,
            )
    if test := result["test"]:
        console.print(
            f"test, {result['checkpoint']}: top-1 {100 * test['top1']:.2f} %, "
            f"top-5 {100 * test['top5']:.2f} % of {test['samples']:,} samples",
            highlight=False,
            soft_wrap=True,
        )


def evaluate(
    checkpoint: Annotated[
        Path, typer.Argument(help="A run's folder (its best weights), or a .safetensors of it.")
    ],
    store: Annotated[Path, typer.Argument(help="A store of the same codec and classes.")],
    split: Annotated[
        list[str] | None, typer.Option(help="Split to evaluate; repeatable. Default: all.")
    ] = None,
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="FILE", help="Write the figures here too; - for stdout alone."
        ),
    ] = None,
    accelerator: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda. Default: the recipe's.")
    ] = None,
) -> None:
    """Print top-1, top-5 and loss of a trained classifier on splits of a store."""
    from rich.console import Console
    from rich.table import Table

    from latentset.datasets.errors import RecipeError
    from latentset.train.evaluate import evaluate_checkpoint
    from latentset.train.run_folder import write_text

    match accelerator:
        case None | "auto" | "cpu" | "cuda":
            found = evaluate_checkpoint(
                checkpoint, store, splits=split or (), accelerator=accelerator
            )
        case _:
            raise RecipeError(f"--accelerator: expected auto, cpu or cuda, got {accelerator!r}")
    text = found.model_dump_json(indent=1)
    if json_file == "-":
        typer.echo(text)
        return
    if json_file is not None:
        write_text(Path(json_file), text + "\n")
    table = Table(title=f"{found.recipe}, epoch {found.epoch}, on {store} ({found.codec})")
    for title in ("split", "samples", "top-1 %", "top-5 %", "loss"):
        table.add_column(title, justify="left" if title == "split" else "right")
    for name, figures in found.splits.items():
        table.add_row(
            name or "(none)",
            f"{figures.samples:,}",
            f"{100 * figures.top1:.2f}",
            f"{100 * figures.top5:.2f}",
            f"{figures.loss:.4f}",
        )
    console = Console()
    console.print(table)
    for note in found.notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs, or folders that hold such folders.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for results.csv, results.md, accuracy.png.")
    ],
) -> None:
    """Gather finished runs in a table, seeds averaged, and a picture: accuracy against bpp."""
    from rich.console import Console

    from latentset.train.report import draw, find_results, gather, make_table, write_tables

    lines = gather(find_results(runs))
    write_tables(lines, out)
    draw(lines, out / "accuracy.png")
    console = Console()
    console.print(make_table(lines))
    console.print(f"written: {out}/results.csv, results.md, accuracy.png", soft_wrap=True)
