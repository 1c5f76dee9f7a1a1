"""One wording for what a location raises when it cannot be read or written."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from latentset.datasets.errors import LatentSetError, StoreError, StoreUnreachableError

READ_BYTES = 1 << 32
"""Bytes of an object that a location reads if not told otherwise: twice the largest shard."""


@contextmanager
def changing(what: str, target: object) -> Iterator[None]:
    """Turn an OSError inside, where ``what`` (``write``, ``remove``) failed, into a StoreError."""
    try:
        yield
    except LatentSetError:
        raise
    except OSError as error:
        match error.errno:
            case errno.ENAMETOOLONG | errno.ENOTDIR | errno.EISDIR | errno.ELOOP | errno.EINVAL:
                advice = "Name another location"
            case _:
                advice = "Make room or give permission, then run the same command again: it resumes"
        text = f"cannot {what} {target}: {error.strerror or error}. {advice}"
        raise StoreError(text) from error


@contextmanager
def reading(target: object) -> Iterator[None]:
    """Turn an OSError inside into the StoreUnreachableError of :func:`unreachable`."""
    try:
        yield
    except LatentSetError:
        raise
    except OSError as error:
        raise unreachable(target, error) from error


def unreachable(target: object, error: OSError) -> StoreUnreachableError:
    """Word the error of a location that cannot be read; its own file is named where it has one."""
    where = error.filename if isinstance(error.filename, str) else target
    return StoreUnreachableError(
        f"{where} cannot be read: {error.strerror or error}. Look at the name, the permissions, "
        "the disk or the network, then run the same command again"
    )
