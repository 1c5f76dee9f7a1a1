"""Images that are in several splits or classes, before any is encoded."""

from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from latentset.datasets.errors import ImageError, SourceError
from latentset.datasets.sources import PART, Source, resolve_inside
from latentset.datasets.sources.images import read_bytes
from latentset.datasets.store.digests import sha256_of
from latentset.datasets.store.samples import OK
from latentset.datasets.store.summary import describe_several

READ_BYTES = 256 << 20
"""Bytes of images that are read at most: where more may be equal, the end of the job tells."""

_ALIKE = ("source_bytes", "height", "width")


def describe_repeated(source: Source, table: pa.Table) -> dict[str, str]:
    """Lines about equal images in several splits or classes of a plan's table, if there are.

    Only images of one size, in bytes and pixels, can be equal: these alone are read.
    """
    if not isinstance(source.root, Path):
        return {}
    columns = [name for name in table.column_names if name != PART.name]  # lists cannot be joined
    images = table.select(columns).filter(pc.equal(table["status"], OK))
    counted = images.group_by(list(_ALIKE)).aggregate(
        [("split", "count_distinct"), ("label", "count_distinct")]
    )
    several = pc.or_(
        pc.greater(counted["split_count_distinct"], 1),
        pc.greater(counted["label_count_distinct"], 1),
    )
    images = images.join(counted.filter(several).select(_ALIKE), list(_ALIKE), join_type="inner")
    if (pc.sum(images["source_bytes"]).as_py() or 0) > READ_BYTES:
        return {}
    images = images.sort_by("path")
    digests: list[str | None] = [None] * images.num_rows
    for k, path in enumerate(images["path"].to_pylist()):
        with suppress(ImageError, SourceError):  # it gets its status when it is encoded
            digests[k] = sha256_of(read_bytes(resolve_inside(source.root, path)))
    images = images.append_column("source_sha256", pa.array(digests, pa.string()))
    return describe_several(images.drop_null())
