"""The commands ``latentset codec ...``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from latentset.cli.console import announce, make_console
from latentset.cli.local_paths import LocalPaths
from latentset.datasets.errors import CodecGraphError, SourceError, TrainingError

app = typer.Typer(
    name="codec",
    help="Learned codecs: list, fetch, inspect, train and evaluate them.",
    no_args_is_help=True,
)

LOADING = "loading TensorFlow"

CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        envvar="LATENTSET_CACHE",
        help="Folder of downloaded codecs.",
        show_default="the user's cache folder",
    ),
]


@app.command("list", cls=LocalPaths)
def list_command(cache: CacheOption = None) -> None:
    """List the codecs that have a name: shipped, published, cached."""
    from rich.table import Table

    from latentset.datasets.terminal import plain, print_text
    from latentset.pipeline.codec.catalogue import cache_folder, list_codecs

    table = Table("codec", "origin", "size", "state", title="Codecs", title_justify="left")
    table.columns[0].no_wrap = True
    table.columns[2].justify = "right"
    for entry in list_codecs(cache):
        size, state = "", "to be fetched"
        if entry.path is not None:
            size = f"{entry.path.stat().st_size / 1e6:.1f} MB"
            state = "ready" if entry.origin == "shipped" else "in the cache"
        table.add_row(plain(entry.name), entry.origin, size, state)
    console = make_console()
    console.print(table)
    print_text(console, f"cache folder: {cache_folder(cache)}")


@app.command("fetch", cls=LocalPaths)
def fetch_command(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Published codecs.")],
    cache: CacheOption = None,
    url_prefix: Annotated[
        str | None,
        typer.Option(
            help="Mirror with NAME.metagraph: http(s)://, file://, hf://, s3:// or a folder.",
            show_default="the authors' server",
        ),
    ] = None,
) -> None:
    """Download codecs into the cache folder and record their SHA-256."""
    from latentset.datasets.terminal import print_text
    from latentset.pipeline.codec.fetch import fetch_codec

    console = make_console()
    for name in names:
        fetched = fetch_codec(name, cache=cache, url_prefix=url_prefix, console=console)
        state = "" if fetched.downloaded else "was there already: "
        print_text(console, f"{state}{fetched.path}")
        console.print(f"SHA-256 {fetched.sha256}", highlight=False, soft_wrap=True)


@app.command("inspect", cls=LocalPaths)
def inspect_command(
    codec: Annotated[str, typer.Argument(help="A metagraph file, or the name of a codec.")],
    tensor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=NAME",
            help="Use this tensor for y_hat, scale_index or z_hat instead of the one found.",
        ),
    ] = None,
    cache: CacheOption = None,
) -> None:
    """Load a codec, check it, and print what was found in its graph."""
    from latentset.pipeline.codec.catalogue import locate_codec

    named, path = parse_tensors(tensor or []), locate_codec(codec, cache)
    announce(LOADING)
    from latentset.pipeline.codec.load.codec import load_codec
    from latentset.pipeline.codec.load.inspection import describe

    loaded = load_codec(str(path), tensors=named)
    console = make_console()
    for part in describe(loaded):
        console.print(part)


@app.command("train", cls=LocalPaths)
def train_command(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", help="Folders of images, searched recursively."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The metagraph file to write.")],
    lmbda: Annotated[float, typer.Option(help="Weight of the distortion against bits per pixel.")],
    steps: Annotated[int, typer.Option(help="Training steps.")],
    distortion: Annotated[
        Literal["ms-ssim", "mse"], typer.Option(help="What to minimise besides the rate.")
    ] = "ms-ssim",
    N: Annotated[
        int, typer.Option("--filters", "-N", help="Filters of every layer but the last.")
    ] = 128,
    M: Annotated[int, typer.Option("--channels", "-M", help="Channels of y.")] = 192,
    crop: Annotated[int, typer.Option(help="Side of the training crops, pixels.")] = 256,
    batch: Annotated[int, typer.Option(help="Crops a step.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="Learning rate at first.")] = 1e-4,
    final_learning_rate: Annotated[
        float, typer.Option(help="Learning rate at the last step.")
    ] = 1e-6,
    decay_from: Annotated[
        float, typer.Option(help="Fraction of the steps after which the rate falls, 0 to 1.")
    ] = 0.5,
    mse_warmup_steps: Annotated[
        int, typer.Option(help="First steps, trained on the mean squared error.")
    ] = 0,
    mse_warmup_lmbda: Annotated[
        float, typer.Option(help="Weight of the distortion in these steps.")
    ] = 0.01,
    seed: Annotated[int, typer.Option(help="Seed of weights and crops.")] = 0,
    init_from: Annotated[
        Path | None, typer.Option(help="Checkpoint folder of another run to initialise from.")
    ] = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option(help="Folder of checkpoints.", show_default="OUTPUT.checkpoints"),
    ] = None,
    checkpoint_interval: Annotated[int, typer.Option(help="Steps between two checkpoints.")] = 500,
    log_interval: Annotated[int, typer.Option(help="Steps between two log lines.")] = 50,
) -> None:
    """Train a scale hyperprior on images, or resume."""
    given = {name: value for name, value in locals().items() if value is not None}
    from pydantic import ValidationError

    from latentset.datasets.errors import describe_invalid
    from latentset.datasets.sources.root import resolve_root
    from latentset.pipeline.codec.train.training_settings import TrainingSettings

    if output.is_dir():
        raise typer.BadParameter(f"--output: expected a file to write, and {output} is a folder")
    try:
        settings = TrainingSettings(**given)
    except ValidationError as error:
        raise TrainingError(describe_invalid(error)) from None
    for folder in images:
        resolve_root(folder)
    announce(LOADING)
    from latentset.pipeline.codec.train.training import train_codec

    train_codec(settings, console=make_console())


@app.command("evaluate", cls=LocalPaths)
def evaluate_command(
    images: Annotated[Path, typer.Argument(help="Folder of images.")],
    codecs: Annotated[
        list[str], typer.Argument(metavar="CODEC...", help="Metagraph files, or names of codecs.")
    ],
    cache: CacheOption = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table as Markdown.")
    ] = False,
) -> None:
    """Measure rate, MS-SSIM and PSNR of codecs, beside JPEG.

    The rate is that of real bitstreams.
    """
    from latentset.pipeline.codec.catalogue import locate_codec

    paths = [locate_codec(name, cache) for name in codecs]
    announce(LOADING)
    from latentset.pipeline.codec.evaluation import (
        evaluate_codec,
        figures_markdown,
        figures_table,
        read_images,
    )

    console = make_console(stderr=markdown)
    pixels = read_images(images, console)
    figures = [evaluate_codec(path, pixels, console=console) for path in paths]
    if markdown:
        typer.echo(figures_markdown(figures), nl=False)
    else:
        console.print(figures_table(figures))


@app.command("time", cls=LocalPaths)
def time_command(
    codecs: Annotated[
        list[str], typer.Argument(metavar="CODEC...", help="Metagraph files, or names of codecs.")
    ],
    image: Annotated[
        Path | None, typer.Option(help="An image.", show_default="a synthetic one of --size")
    ] = None,
    size: Annotated[
        str, typer.Option(metavar="HxW", help="Of the synthetic image, pixels.")
    ] = "362x362",
    repeat: Annotated[int, typer.Option(min=1, help="Runs, whose median is taken.")] = 20,
    threads: Annotated[int, typer.Option(min=1, help="Threads within one op.")] = 1,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the times here as JSON.")
    ] = None,
    cache: CacheOption = None,
) -> None:
    """Time how codecs encode and decode one image.

    In batches of 1, with real bitstreams.
    """
    from rich.table import Table

    from latentset.datasets.sources.images import read_image
    from latentset.datasets.sources.resize import ResizeRule
    from latentset.datasets.storage.atomic import write_atomically
    from latentset.datasets.store.target_checks import check_output
    from latentset.datasets.terminal import plain
    from latentset.pipeline.codec.catalogue import locate_codec

    try:
        sides = ResizeRule.parse(f"exact:{size}").size(1, 1)
    except SourceError:
        raise typer.BadParameter(
            f"--size: expected HxW, for instance 362x362, sides from 16 pixels, got {size!r}"
        ) from None
    given = None if image is None else read_image(image)
    paths = [locate_codec(name, cache) for name in codecs]
    if json is not None:
        check_output(json)
    announce(LOADING)
    from latentset.pipeline.codec.codec_timing import CodecTimes, describe_machine, time_codec
    from latentset.pipeline.codec.load.codec import load_codec
    from latentset.pipeline.codec.load.selfcheck import make_test_images

    pixels = make_test_images(sides)[0] if given is None else given
    loaded = [load_codec(str(path), threads=threads) for path in paths]
    times = CodecTimes(
        machine=describe_machine(threads),
        codecs={codec.info.name: time_codec(codec, pixels, repeat) for codec in loaded},
    )
    table = Table("codec", "encode", "decode", "analysis", "synthesis", title_justify="left")
    table.columns[0].no_wrap = True
    table.title = f"ms, median of {repeat}; {times.machine}"
    for name, found in times.codecs.items():
        shown = (found.encode_ms, found.decode_ms, found.analysis_ms, found.synthesis_ms)
        table.add_row(plain(name), *(f"{value:.1f}" for value in shown))
    make_console().print(table)
    if json is not None:
        write_atomically(json, times.model_dump_json(indent=1) + "\n")


def parse_tensors(options: list[str]) -> dict[str, str]:
    """Read ``KEY=NAME`` options that name tensors.

    Args:
        options: As ``y_hat=analysis/Cast:0``.

    Raises:
        CodecGraphError: One is not of this form.
    """
    named = {}
    for option in options:
        key, equals, name = option.partition("=")
        if not equals or not name:
            raise CodecGraphError(f"expected KEY=NAME, as y_hat=analysis/Cast:0, got {option!r}")
        named[key] = name
    return named
