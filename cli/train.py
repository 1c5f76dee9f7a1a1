"""The commands `latentset train`, `evaluate`, `predict` and `export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from latentset.cli.console import announce, make_console
from latentset.cli.store import CacheBytesOption, CacheOption

LOADING = "loading PyTorch"

CheckpointArgument = Annotated[
    Path, typer.Argument(help="A run's folder (its best weights), or a .safetensors of it.")
]
CropOption = Annotated[
    Literal["whole", "central"] | None,
    typer.Option(help="See each sample's whole grid or its central square. Default: recipe's."),
]
AcceleratorOption = Annotated[
    Literal["auto", "cpu", "cuda"] | None,
    typer.Option(help="Where to compute. Default: the recipe's."),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust-store",
        help="Do not compare the shards of a local store with their digests, as is done once.",
    ),
]


def train(
    recipe: Annotated[
        str,
        typer.Argument(help="Path of a recipe, or name of one that ships (fa-cresnet-slim)."),
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
    cache: CacheOption = None,
    cache_bytes: CacheBytesOption = None,
    trust_store: TrustOption = False,
) -> None:
    """Train a classifier from a store, or resume an earlier run."""
    from latentset.datasets.terminal import printable
    from latentset.paper.recipes import load_recipe

    given = [] if store is None else [f"data.store={store}"]
    loaded = load_recipe(recipe, [*(settings or []), *given])
    announce(LOADING)
    from latentset.train.run.fit import fit  # heavy: a mistake in the recipe is reported before

    result = fit(
        loaded,
        out,
        console=make_console(),
        cache=cache,
        cache_bytes=cache_bytes,
        trust_store=trust_store,
    )
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
            printable(f"{result['test_split']}, {result['checkpoint']}: ")
            + f"top-1 {100 * test['top1']:.2f} %, "
            f"top-5 {100 * test['top5']:.2f} % of {test['samples']:,} samples"
        )


def evaluate(
    checkpoint: CheckpointArgument,
    store: Annotated[str, typer.Argument(help="A store of the same codec and classes.")],
    split: Annotated[
        list[str] | None, typer.Option(help="Split to evaluate; repeatable. Default: all.")
    ] = None,
    crop: CropOption = None,
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
    accelerator: AcceleratorOption = None,
    cache: CacheOption = None,
    cache_bytes: CacheBytesOption = None,
    trust_store: TrustOption = False,
) -> None:
    """Print top-1, top-5 and loss on splits of a store."""
    from rich.table import Table

    announce(LOADING)
    from latentset.datasets.storage.atomic import write_atomically
    from latentset.datasets.terminal import plain, print_text
    from latentset.train.run.evaluate import evaluate_checkpoint
    from latentset.train.run.run_files import check_target

    files = [Path(file) for file in (json_file, confusion, logits) if file not in (None, "-")]
    for file in files:
        check_target(file)
    if len({file.resolve() for file in files}) < len(files):
        raise typer.BadParameter("--json, --confusion and --logits: expected different files")
    found = evaluate_checkpoint(
        checkpoint,
        store,
        splits=split or (),
        crop=crop,
        accelerator=accelerator,
        confusion=confusion,
        logits=logits,
        cache=cache,
        cache_bytes=cache_bytes,
        trust_store=trust_store,
    )
    text = found.model_dump_json(indent=1)
    if json_file == "-":
        typer.echo(text)
        return
    if json_file is not None:
        write_atomically(Path(json_file), text + "\n")
    table = Table(title=plain(f"{found.recipe}, epoch {found.epoch}, on {store} ({found.codec})"))
    for title in ("split", "samples", "top-1 %", "top-5 %", "loss"):
        table.add_column(title, justify="left" if title == "split" else "right")
    for name, figures in found.splits.items():
        accuracies = (f"{100 * figures.top1:.2f}", f"{100 * figures.top5:.2f}")
        table.add_row(
            plain(name or "(none)"), f"{figures.samples:,}", *accuracies, f"{figures.loss:.4f}"
        )
    console = make_console()
    console.print(table)
    if per_class:
        table = Table("class", title="top-1 % of each class")
        for name in found.splits:
            table.add_column(plain(name or "(none)"), justify="right")
        for cls in next(iter(found.splits.values())).per_class:
            shown = [figures.per_class[cls] for figures in found.splits.values()]
            table.add_row(
                plain(cls), *("" if top1 is None else f"{100 * top1:.2f}" for top1 in shown)
            )
        console.print(table)
    for note in found.notes:
        print_text(console, f"note: {note}")


def predict(
    checkpoint: CheckpointArgument,
    store: Annotated[
        str, typer.Argument(help="A store of the same codec; its samples need no labels.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File to write: NAME.csv or NAME.parquet.")
    ],
    top: Annotated[
        int, typer.Option(min=1, help="Classes of each sample, the most probable first.")
    ] = 1,
    crop: CropOption = None,
    accelerator: AcceleratorOption = None,
    cache: CacheOption = None,
    cache_bytes: CacheBytesOption = None,
    trust_store: TrustOption = False,
) -> None:
    """Write the class predicted for each sample of a store."""
    announce(LOADING)
    from latentset.datasets.terminal import printable
    from latentset.train.run.prediction import write_predictions

    found = write_predictions(
        checkpoint,
        store,
        out,
        top=top,
        crop=crop,
        accelerator=accelerator,
        cache=cache,
        cache_bytes=cache_bytes,
        trust_store=trust_store,
    )
    typer.echo(f"{printable(str(out))}: {found.samples:,} samples")
    if found.failed:
        typer.echo(f"note: samples without latents, which are not in it: {found.failed:,}")
    for note in found.notes:
        typer.echo(f"note: {printable(note)}")


def export(
    checkpoint: CheckpointArgument,
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
    announce(LOADING)
    from latentset.datasets.terminal import printable
    from latentset.train.run.classifier_export import export_classifier

    typer.echo(printable(export_classifier(checkpoint, store, out)))
