"""The store: latents of one collection of images, by one codec (docs/store-spec.md).

``header``, ``layout``, ``samples`` and ``manifest`` are the specification's parts, ``scales`` the
numbers of scales; ``objects`` writes files whole; ``writer`` makes a store, ``reader`` opens one.

What is re-exported here is imported when it is first used: the command line imports this package
to print its help, and Zarr and Arrow would take a second.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentset.datasets.store.header import CodecInfo, Header
    from latentset.datasets.store.manifest import Manifest
    from latentset.datasets.store.reader import Store, open_store

__all__ = ["CodecInfo", "Header", "Manifest", "Store", "open_store"]

_MODULES = {
    "CodecInfo": "header",
    "Header": "header",
    "Manifest": "manifest",
    "Store": "reader",
    "open_store": "reader",
}


def __getattr__(name: str) -> Any:
    """Import what is re-exported."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
