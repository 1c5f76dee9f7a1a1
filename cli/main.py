"""The command `latentset`: it gathers the commands of every part, and words their errors.

The modules that define the commands import nothing heavy, so that `latentset --help` answers at
once; a command imports its framework when it runs.
"""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from latentset.cli.codec import app as codec_app
from latentset.cli.decode import decode
from latentset.cli.encode import encode
from latentset.cli.paper import models, recipes, report, sweep
from latentset.cli.store import convert, inspect
from latentset.cli.train import evaluate, export, train
from latentset.cli.verify import verify
from latentset.datasets.errors import LatentSetError, MissingEnvironmentError

FRAMEWORK_EXTRAS = {
    "tensorflow": "encode",
    "tensorflow_compression": "encode",
    "dask": "encode",
    "distributed": "encode",
    "scipy": "encode",
    "torch": "train",
    "torchvision": "train",
    "tensorboard": "train",
    "safetensors": "train",
    "tensorstore": "train",
    "torchinfo": "train",
    "matplotlib": "train",
}
"""The extra of setup.cfg that brings each package a command may miss."""

app = typer.Typer(
    name="latentset",
    help=(
        "Encode an image data set once with a learned codec, keep its latents, "
        "train classifiers on them without ever decoding."
    ),
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.add_typer(codec_app, name="codec")
app.command()(encode)
app.command()(decode)
app.command()(inspect)
app.command()(verify)
app.command()(convert)
app.command()(train)
app.command()(evaluate)
app.command()(export)
app.command()(report)
app.command()(sweep)
app.command()(recipes)
app.command()(models)


def _print_version(wanted: bool) -> None:
    if wanted:
        from latentset.datasets.version import __version__

        typer.echo(f"latentset {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def _missing_framework(error: ModuleNotFoundError) -> LatentSetError | None:
    package = (error.name or "").partition(".")[0]
    extra = FRAMEWORK_EXTRAS.get(package)
    if extra is None:
        return None
    return MissingEnvironmentError(
        f"this command needs {package}, which this environment lacks. Encoding and training use "
        f"two environments (README, Install): run it in the one made with "
        f"pip install 'latentset[{extra}]'"
    )


def main() -> None:
    """Run the command line.

    Exit status: 0 on success, 1 on an error that the message explains, 2 on wrong usage, 130 when
    interrupted.
    """
    failure: Exception
    try:
        app()
    except LatentSetError as error:
        failure = error
    except ModuleNotFoundError as error:
        missing = _missing_framework(error)
        if missing is None:
            raise
        failure = missing
    except KeyboardInterrupt:
        sys.exit(130)
    else:
        return
    from latentset.datasets.store.summary import printable

    text = "\n".join(printable(line) for line in str(failure).splitlines())
    Console(stderr=True).print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True)
    sys.exit(1)
