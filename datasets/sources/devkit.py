"""The ground truth of ImageNet's flat validation folder, from the devkit or a text file."""

import io
import re
import tarfile
from pathlib import Path

from latentset.datasets.errors import MissingEnvironmentError, SourceError

WNID = re.compile(r"n\d{8}", re.ASCII)
"""A WordNet noun's number, which names a class."""

_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
_META = "data/meta.mat"
_MAX_BYTES = 2**26  # of a file in the devkit; the real ones have 0.2 and 1.0 MB


def read_ground_truth(devkit: Path) -> tuple[list[str], set[str]]:
    """Read the WNID of each validation image, in order, and all WNIDs that are classes.

    Args:
        devkit: The development kit, as a folder or the ``.tar.gz`` file as distributed (its class
            numbers are turned into WNIDs by meta.mat, which needs scipy), or a ``.txt`` file with
            the WNID of image i in line i, which needs nothing else.

    Raises:
        SourceError: A file is missing or not what it should be.
        MissingEnvironmentError: scipy is not installed.
    """
    if devkit.suffix == ".txt":
        wnids = _read(devkit).decode("ascii", "replace").split()
        for line, wnid in enumerate(wnids, start=1):
            if not WNID.fullmatch(wnid):
                raise SourceError(
                    f"{devkit}, entry {line}: expected a WNID (n and 8 digits), found"
                    f" {wnid[:40]!r}; class numbers need the whole devkit, whose"
                    " meta.mat has their meaning"
                )
        return wnids, set(wnids)
    if devkit.is_file():
        truth, meta = _read_archive(devkit)
    else:
        truth, meta = _read(devkit / _TRUTH), _read(devkit / _META)
    wnid_of = _read_meta(meta, devkit)
    try:
        numbers = [int(text) for text in truth.split()]
        return [wnid_of[number] for number in numbers], set(wnid_of.values())
    except (ValueError, KeyError) as error:
        raise SourceError(f"{devkit}: {_TRUTH} has an entry that is no class: {error}") from error


def _read_meta(meta: bytes, devkit: Path) -> dict[int, str]:
    """Read which WNID a class number means; synsets with children are no classes."""
    try:
        from scipy.io import loadmat  # here: only this file format needs it
    except ModuleNotFoundError as error:
        raise MissingEnvironmentError(
            "reading the devkit's meta.mat needs scipy: install the extra 'encode' (or scipy), or"
            " give a .txt file with the WNID of each validation image, one a line"
        ) from error
    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True, variable_names=["synsets"])["synsets"]
        wnid_of = {
            int(row["ILSVRC2012_ID"]): str(row["WNID"])
            for row in synsets.reshape(-1)
            if int(row["num_children"]) == 0
        }
    except Exception as error:  # scipy raises whatever a damaged file makes it raise
        raise SourceError(f"{devkit}: {_META} is not the devkit's: {error}") from error
    if not wnid_of or not all(WNID.fullmatch(wnid) for wnid in wnid_of.values()):
        raise SourceError(f"{devkit}: {_META} has no classes named by WNID")
    return wnid_of


def _read_archive(devkit: Path) -> tuple[bytes, bytes]:
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(devkit) as archive:
            for member in archive:
                for wanted in (_TRUTH, _META):
                    if member.isfile() and member.name.endswith(f"/{wanted}"):
                        file = archive.extractfile(member)
                        if file is not None and member.size <= _MAX_BYTES:
                            found[wanted] = file.read()
        return found[_TRUTH], found[_META]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise SourceError(f"{devkit}: not the devkit's .tar.gz: {error}") from error
    except KeyError as error:
        raise SourceError(f"{devkit}: {error.args[0]} is not in it") from error


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SourceError(f"{path}: expected a list of classes of at most {_MAX_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}; expected the ground truth there") from error
