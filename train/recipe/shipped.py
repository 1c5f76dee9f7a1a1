"""Where the recipes that ship are."""

from importlib import import_module
from pathlib import Path

PACKAGE = "latentset.recipes"
"""Their package, which has no modules."""


def shipped_folder() -> Path:
    """Find the folder of the recipes that ship.

    Returns:
        The folder, in a checkout as in an installed package.
    """
    return next(path for path in map(Path, import_module(PACKAGE).__path__) if path.is_dir())
