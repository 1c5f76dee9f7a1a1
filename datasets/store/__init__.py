"""The store: latents or pixels of one collection of images (docs/store-spec.md).

What is re-exported here is imported when it is first used: the command line imports this package
to print its help, and Zarr and Arrow would take a second.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentset.datasets.store.header import CodecInfo, Header
    from latentset.datasets.store.manifest import Manifest
    from latentset.datasets.store.opening import open_store
    from latentset.datasets.store.store import Store

__all__ = ["CodecInfo", "Header", "Manifest", "Store", "open_store"]

_MODULES = {
    "CodecInfo": "header",
    "Header": "header",
    "Manifest": "manifest",
    "Store": "store",
    "open_store": "opening",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
