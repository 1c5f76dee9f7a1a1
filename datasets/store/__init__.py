"""The store: latents of one collection of photographs, by one codec (docs/store-spec.md).

``header``, ``layout``, ``samples`` and ``manifest`` are the specification's parts; ``objects``
writes files whole; ``writer`` makes a store and ``reader`` opens one.
"""

from latentset.datasets.store.header import CodecInfo, Header
from latentset.datasets.store.manifest import Manifest
from latentset.datasets.store.reader import Store, open_store

__all__ = ["CodecInfo", "Header", "Manifest", "Store", "open_store"]
