"""Every error that LatentSet raises on purpose, in one tree; each is also a builtin.

::

    LatentSetError (Exception)
    ├── CodecError (ValueError)              a codec cannot be used
    │   ├── CodecGraphError                  a metagraph is not what is expected
    │   ├── ForbiddenOpError                 a metagraph holds an op that is not allowed
    │   ├── CodecNotFoundError (FileNotFoundError)
    │   └── FetchError (OSError)             a download failed, or differs from the recorded one
    ├── SourceError (ValueError)             a collection of images is not laid out as said
    ├── ImageError (ValueError)         one image cannot be read; carries its status
    ├── StoreError (ValueError)              a store cannot be used
    │   ├── StoreIncompleteError             its manifest is missing: the job has not finished
    │   ├── StoreFormatError                 not a store, or of a version this reader does not know
    │   ├── StoreUnreachableError (OSError)  its location cannot be looked at (permission, network)
    │   └── StoreCorruptError                its objects differ from what its manifest says
    ├── JobError (RuntimeError)              an encode job cannot go on
    │   ├── SettingsChangedError             the job on disk was begun with other settings
    │   ├── ImageFailedError            an image failed and the job was told to stop then
    │   └── CpuIsaError                      the vector instructions of --cpu-isa are not to be had
    ├── RecipeError (ValueError)             a recipe is not valid, or does not fit the store
    ├── TrainingError (RuntimeError)         training cannot begin or go on
    └── MissingEnvironmentError (ImportError)  this environment lacks the framework that is needed

A message says what was wrong, what was expected, what was found, and what to do.
"""

from typing import Any


class LatentSetError(Exception):
    """Base of all errors raised on purpose; the command line prints its text without a trace."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Say how workers send it: by its arguments. Dask would make it anew without any."""
        return type(self), self.args


class CodecError(LatentSetError, ValueError):
    """A codec cannot be used."""


class CodecGraphError(CodecError):
    """A metagraph does not hold what a scale-hyperprior codec holds."""


class ForbiddenOpError(CodecError):
    """A metagraph holds an operation that is not on the allowed list."""


class CodecNotFoundError(CodecError, FileNotFoundError):
    """No codec of that name is shipped, cached, or lies at that path."""


class FetchError(CodecError, OSError):
    """A codec could not be downloaded whole, or differs from the one recorded before."""


class SourceError(LatentSetError, ValueError):
    """A collection of images is not laid out as it was said to be."""


class ImageError(LatentSetError, ValueError):
    """One image cannot be read.

    Args:
        message: What is wrong with it.
        status: The status recorded in the samples table (docs/store-spec.md).
    """

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message, status)
        self.message = message
        self.status = status

    def __str__(self) -> str:
        return self.message


class StoreError(LatentSetError, ValueError):
    """A store cannot be used."""


class StoreIncompleteError(StoreError):
    """A store has no manifest: the job that writes it has not finished."""


class StoreFormatError(StoreError):
    """Not a store, or one of a format version that this reader does not know."""


class StoreUnreachableError(StoreError, OSError):
    """What lies at a location cannot be seen: no permission, an impossible name, no network."""


class StoreCorruptError(StoreError):
    """The objects of a store differ from what its manifest says.

    Args:
        what: What is wrong.
        advice: What to do; a report of many problems leaves it out and gives one for all.
    """

    def __init__(
        self, what: str, advice: str = "Fetch it again, or encode the store again"
    ) -> None:
        super().__init__(what, advice)
        self.what = what

    def __str__(self) -> str:
        return ". ".join(self.args)


class JobError(LatentSetError, RuntimeError):
    """An encode job cannot go on."""


class SettingsChangedError(JobError):
    """The job on disk was begun with other settings."""


class ImageFailedError(JobError):
    """An image could not be encoded and the job was told to stop when that happens."""


class CpuIsaError(JobError):
    """The vector instructions that latents are to be computed with are not to be had here."""


class RecipeError(LatentSetError, ValueError):
    """A recipe is not valid, or does not fit the store it is used with."""


class TrainingError(LatentSetError, RuntimeError):
    """Training cannot begin or go on."""


class MissingEnvironmentError(LatentSetError, ImportError):
    """This environment lacks the framework that a command needs."""


def describe_invalid(error: Exception) -> str:
    """Say why a file's content was refused, for the end of a message.

    Args:
        error: What reading it raised.

    Returns:
        Of a validation error one line: each field, what was wrong, and what was found; of any
        other error its text.
    """
    from pydantic import ValidationError  # here, so that --help need not wait for it

    if not isinstance(error, ValidationError):
        return str(error)
    parts = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        found = f", got {item['input']!r:.80}" if item["type"] != "value_error" else ""
        parts.append(f"{field}: {message}{found}" if field else f"{message}{found}")
    return "; ".join(parts)
