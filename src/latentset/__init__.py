"""LatentSet's Python interface: read a store of latents from your own code (docs/python.md)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentset.datasets.store.opening import open_store
    from latentset.datasets.store.store import Store
    from latentset.datasets.version import __version__

__all__ = ["Store", "__version__", "open_store"]

_MODULES = {
    "Store": "latentset.datasets.store.store",
    "__version__": "latentset.datasets.version",
    "open_store": "latentset.datasets.store.opening",
}


def __getattr__(name: str) -> Any:  # lazily: the command line imports this package for its help
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
