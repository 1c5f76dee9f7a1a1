"""The commands `latentset train`, `evaluate` and `export`."""

from pathlib import Path
from typing import Annotated, Literal

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
    """Train a classifier from a store, or resume where the same command stopped."""
    from latentset.paper.recipes import load_recipe

    given = [] if store is None else [f"data.store={store}"]
    loaded = load_recipe(recipe, [*(settings or []), *given])
    from latentset.train.run.fit import fit  # heavy: a mistake in the recipe is reported before

    result = fit(loaded, out)
    if "seconds" not in result:  # not the first of several processes
        return
    for title, figures in (("best epoch", result["best"]), ("last epoch", result["last"])):
        if figures and figures["val_top1"] is not None:
            typer.echo(
                f"{title} {figures['epoch']}: val top-1 {100 * figures['val_top1']:.2f} %, "
                f"top-5 {100 * figures['val_top5']:.2f} %"
            )
    if test := result["test"]:
        typer.echo(
            f"test, {result['checkpoint']}: top-1 {100 * test['top1']:.2f} %, "
            f"top-5 {100 * test['top5']:.2f} % of {test['samples']:,} samples"
        )


def evaluate(
    checkpoint: Annotated[
        Path, typer.Argument(help="A run's folder (its best weights), or a .safetensors of it.")
    ],
    store: Annotated[str, typer.Argument(help="A store of the same codec and classes.")],
    split: Annotated[
        list[str] | None, typer.Option(help="Split to evaluate; repeatable. Default: all.")
    ] = None,
    crop: Annotated[
        Literal["whole", "central"] | None,
        typer.Option(help="See each sample's whole grid or its central square. Default: recipe's."),
    ] = None,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Print the accuracy of each class too.")
    ] = False,
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="FILE", help="Write the figures here too; - for stdout alone."
        ),
    ] = None,
    confusion: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the confusion matrix here, CSV; all these splits together.",
        ),
    ] = None,
    logits: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write every sample's logits here, for a student (distill.logits)."
        ),
    ] = None,
    accelerator: Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        typer.Option(help="Where to compute. Default: the recipe's."),
    ] = None,
) -> None:
    """Print top-1, top-5 and loss of a trained classifier on splits of a store."""
    from rich.console import Console
    from rich.table import Table

    from latentset.datasets.storage.atomic import write_atomically
    from latentset.train.run.evaluate import evaluate_checkpoint

    found = evaluate_checkpoint(
        checkpoint,
        store,
        splits=split or (),
        crop=crop,
        accelerator=accelerator,
        confusion=confusion,
        logits=logits,
    )
    text = found.model_dump_json(indent=1)
    if json_file == "-":
        typer.echo(text)
        return
    if json_file is not None:
        write_atomically(Path(json_file), text + "\n")
    table = Table(title=f"{found.recipe}, epoch {found.epoch}, on {store} ({found.codec})")
    for title in ("split", "samples", "top-1 %", "top-5 %", "loss"):
        table.add_column(title, justify="left" if title == "split" else "right")
    for name, figures in found.splits.items():
        accuracies = (f"{100 * figures.top1:.2f}", f"{100 * figures.top5:.2f}")
        table.add_row(name or "(none)", f"{figures.samples:,}", *accuracies, f"{figures.loss:.4f}")
    console = Console()
    console.print(table)
    if per_class:
        table = Table("class", title="top-1 % of each class")
        for name in found.splits:
            table.add_column(name or "(none)", justify="right")
        for cls in next(iter(found.splits.values())).per_class:
            shown = [figures.per_class[cls] for figures in found.splits.values()]
            table.add_row(cls, *("" if top1 is None else f"{100 * top1:.2f}" for top1 in shown))
        console.print(table)
    for note in found.notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)


def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="A run's folder (its best weights), or a .safetensors of it.")
    ],
    store: Annotated[str, typer.Argument(help="A store of its codec: it has the scale table.")],
    out: Annotated[
        Path,
        typer.Argument(
            help="NAME.pt2: a program of torch.export, from stored integers to logits; "
            "NAME.safetensors: the weights alone, by PyTorch's names."
        ),
    ],
) -> None:
    """Write a trained classifier for use without this library."""
    from latentset.train.run.classifier_export import export_classifier

    typer.echo(export_classifier(checkpoint, store, out))
