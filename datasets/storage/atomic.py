"""Files that get their name when they are whole, and locks on open files: the one way of each."""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

PARTIAL = ".partial-"
"""Part of the name of a file that is being written; nothing of that name belongs to a store."""


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a new, empty file beside ``target`` that takes its name when the context ends.

    After a crash the target is complete, missing, or as it was; after an error it is as it was. The
    temporary name is random and its file new, so that no link is followed.

    Raises:
        OSError: The file cannot be written or flushed.
    """
    with _partial_file(target) as partial:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        mode = partial.stat().st_mode  # by the umask; a library that writes may choose another
        yield partial
        partial.chmod(mode)
        flush(partial)
        partial.replace(target)
        flush(target.parent)


def write_atomically(target: Path, content: bytes | str) -> None:
    """Write a file, text as UTF-8, as ``atomic_file`` does."""
    with atomic_file(target) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def create_atomically(target: Path, content: bytes) -> bool:
    """The same unless there is a file (False); of several callers one creates it."""
    with _partial_file(target) as partial:
        partial.write_bytes(content)
        flush(partial)
        try:
            target.hardlink_to(partial)
        except FileExistsError:
            return False
    flush(target.parent)
    return True


_TRIED_BYTES = 1 << 12


def check_writable(target: Path) -> None:
    """Raise OSError if a file could not be written there, before work for it begins.

    Folders above it that are not there are not made.
    """
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    above = target.absolute().parents
    folder = next(parent for parent in above if parent.exists() or parent.is_symlink())
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    with _partial_file(folder / target.name) as partial, partial.open("wb") as file:
        file.write(bytes(_TRIED_BYTES))  # an empty file has room on a full disk


@contextmanager
def _partial_file(target: Path) -> Iterator[Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}{PARTIAL}{secrets.token_hex(6)}")
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
        yield partial
    except OSError as error:
        if error.errno and error.filename in (None, str(partial), os.fsencode(partial)):
            error.filename, error.filename2 = str(target), None  # the name that the user knows
        raise
    finally:
        with suppress(OSError):  # the error that led here says more
            partial.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Flush a file, or a folder's names, to the device, so that they survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(file: IO[Any] | int, *, shared: bool = False) -> None:
    """Wait for the lock of an open file, as ``try_lock``; several may hold it shared."""
    with suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


def try_lock(file: IO[Any]) -> bool:
    """Lock an open file until it is closed; False where another process holds the lock.

    The lock ends with the process, and is inherited by its children. File systems without locks
    let everybody in.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True
