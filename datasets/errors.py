# ruff: noqa: D101 (the drawing describes each class)
"""Every error that LatentSet raises on purpose, in one tree; each is also a builtin.

::

    LatentSetError (Exception)
    ├── CodecError (ValueError)              a codec cannot be used
    │   ├── CodecGraphError                  a metagraph is not what is expected
    │   ├── ForbiddenOpError                 a metagraph holds an op that is not allowed
    │   ├── CodecNotFoundError (FileNotFoundError)
    │   └── FetchError (OSError)             a download failed, or differs from the recorded one
    ├── SourceError (ValueError)             a collection of images has another layout
    ├── ImageError (ValueError)              one image cannot be read; carries its status
    ├── StoreError (ValueError)              a store cannot be used
    │   ├── StoreIncompleteError             its manifest is missing: the job has not finished
    │   ├── StoreFormatError                 not a store, or of a version this reader does not know
    │   ├── StoreUnreachableError (OSError)  its location cannot be read (permission, network)
    │   └── StoreCorruptError                its objects differ from what its manifest says
    ├── JobError (RuntimeError)              a job cannot continue
    │   ├── SettingsChangedError             the job on disk was started with other settings
    │   ├── ImageFailedError                 an image failed and the job was told to stop then
    │   └── CpuIsaError                      the vector instructions of --cpu-isa are not available
    ├── RecipeError (ValueError)             a recipe is not valid, or does not fit the store
    ├── TrainingError (RuntimeError)         training cannot start or continue
    └── MissingEnvironmentError (ImportError)  this environment lacks the framework that is needed

A message says what was wrong, what was expected, what was found, and what to do.
"""

import difflib
from collections.abc import Iterable
from typing import Any


class LatentSetError(Exception):
    """Base of all errors raised on purpose; the command line prints its text without a trace."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it by its arguments; Dask would make it anew without any."""
        return type(self), self.args


class CodecError(LatentSetError, ValueError): ...


class CodecGraphError(CodecError): ...


class ForbiddenOpError(CodecError): ...


class CodecNotFoundError(CodecError, FileNotFoundError): ...


class FetchError(CodecError, OSError): ...


class SourceError(LatentSetError, ValueError): ...


class ImageError(LatentSetError, ValueError):
    """One image cannot be read; ``status`` is recorded in the samples table."""

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message, status)
        self.message = message
        self.status = status

    def __str__(self) -> str:
        return self.message


class StoreError(LatentSetError, ValueError): ...


class StoreIncompleteError(StoreError): ...


class StoreFormatError(StoreError): ...


class StoreUnreachableError(StoreError, OSError): ...


class StoreCorruptError(StoreError):
    """A store is damaged; a report of many problems has ``what``, and one advice for all."""

    def __init__(
        self, what: str, advice: str = "Fetch it again, or encode the store again"
    ) -> None:
        super().__init__(what, advice)
        self.what = what

    def __str__(self) -> str:
        return ". ".join(self.args)


class JobError(LatentSetError, RuntimeError): ...


class SettingsChangedError(JobError): ...


class ImageFailedError(JobError): ...


class CpuIsaError(JobError): ...


class RecipeError(LatentSetError, ValueError): ...


class TrainingError(LatentSetError, RuntimeError): ...


class MissingEnvironmentError(LatentSetError, ImportError): ...


def expect(
    what: str, expected: object, found: object, error: type[StoreError] = StoreCorruptError
) -> None:
    """Raise an error of the usual wording unless two values are equal."""
    if found != expected:
        raise error(f"{what}: expected {expected!s:.400}, got {found!s:.400}")


_SHOWN = 5
"""Errors of a file's content that a message has."""


def describe_invalid(error: Exception) -> str:
    """Why a file's content was refused, for the end of a message.

    Of a validation error one line: each field, what was wrong, and what was found.
    """
    from pydantic import ValidationError  # here, so that --help need not wait for it

    if not isinstance(error, ValidationError):
        return str(error)
    parts, errors = [], error.errors(include_url=False, include_context=False)
    for item in errors[:_SHOWN]:
        field = repr(".".join(str(part) for part in item["loc"]))[1:-1][:80]
        message = item["msg"].removeprefix("Value error, ")
        found = f", got {item['input']!r:.80}" if item["type"] != "value_error" else ""
        parts.append(f"{field}: {message}{found}" if field else f"{message}{found}")
    if len(errors) > _SHOWN:
        parts.append(f"and {len(errors) - _SHOWN} more")
    return "; ".join(parts)


def suggest(name: str, known: Iterable[str]) -> str:
    """End of a message: the name that was probably meant, if one is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
