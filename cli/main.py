"""The command `latentset`: it gathers the commands of every part, and words their errors.

The modules that define the commands import nothing heavy, so that `latentset --help` answers at
once; a command imports its framework when it runs.
"""

import sys
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from latentset.cli.codec import app as codec_app
from latentset.cli.console import escape_unencodable, make_console
from latentset.cli.decode import decode
from latentset.cli.encode import encode
from latentset.cli.local_paths import LocalPaths
from latentset.cli.paper import models, recipes, report, sweep
from latentset.cli.sharing import card, publish, pull
from latentset.cli.store import convert, inspect
from latentset.cli.train import evaluate, export, predict, train
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


class Commands(TyperGroup):
    """The commands; one wording for values of options that are not among the choices."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; also what it says of its options."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise


app = typer.Typer(
    name="latentset",
    cls=Commands,
    help=(
        "Encode an image data set once with a learned codec, keep its latents, "
        "train classifiers on them without ever decoding."
    ),
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.add_typer(codec_app, name="codec")
for command in (
    *(encode, decode, inspect, verify, convert, card, publish, pull),
    *(train, evaluate, predict, export, report, sweep, recipes, models),
):
    app.command(cls=LocalPaths)(command)


_debug = False


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
    debug: Annotated[
        bool, typer.Option("--debug", help="Show Python's traceback of an error.")
    ] = False,
) -> None:
    global _debug
    _debug = debug


def _missing_framework(error: ModuleNotFoundError) -> LatentSetError | None:
    package = (error.name or "").partition(".")[0]
    extra = FRAMEWORK_EXTRAS.get(package)
    if extra is None:
        return None
    return MissingEnvironmentError(
        f"this command needs {package}, which this environment lacks. Encoding and training use "
        f"two environments (README, Install): run it in the one made with "
        f"pip install '.[{extra}]' in its clone"
    )


def _is_interruption(error: BaseException | None) -> bool:
    """Whether an error only hides Ctrl-C, which Python may raise within a library's lock."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def main() -> None:
    """Run the command line.

    Exit status: 0 on success, 1 on an error that the message explains, 2 on wrong usage, 130 when
    interrupted.
    """
    failure: Exception
    escape_unencodable()
    if not sys.stderr.isatty():
        app.rich_markup_mode = None  # boxes would wrap what goes to a file or a pipe
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
    except OSError as error:
        what = f"cannot read or write {error.filename}: " if error.filename else ""
        failure = LatentSetError(
            f"{what}{error.strerror or error}. Look at the name, the permissions and the room on "
            "the disk, then run the same command again"
        )
        failure.__cause__ = error
    except Exception as error:
        if _is_interruption(error):
            sys.exit(130)
        failure = LatentSetError(
            f"{type(error).__name__}: {error}\nThis is not expected: please report it, with what "
            "latentset --debug … prints"
        )
        failure.__cause__ = error
    else:
        return
    if _debug:
        raise failure
    from latentset.datasets.terminal import printable

    text = "\n".join(map(printable, str(failure).split("\n")))
    shown = Text.assemble(("error:", "bold red"), " ", text)
    make_console(stderr=True).print(shown, soft_wrap=True)
    sys.exit(1)
