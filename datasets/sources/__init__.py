"""Sources of images: which files there are, their class and their split.

Each layout is one module; :func:`~latentset.datasets.sources.layouts.open_source` chooses.
"""

from latentset.datasets.sources.layouts import SourceKind, open_source
from latentset.datasets.sources.root import ImageRoot, open_root, resolve_inside
from latentset.datasets.sources.source import PART, SOURCE_SCHEMA, Source

__all__ = [
    "PART",
    "SOURCE_SCHEMA",
    "ImageRoot",
    "Source",
    "SourceKind",
    "open_root",
    "open_source",
    "resolve_inside",
]
