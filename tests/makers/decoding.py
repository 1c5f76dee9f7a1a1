"""Jobs with a worker of this process, without a terminal."""

from pathlib import Path

from latentset.datasets.errors import LatentSetError
from latentset.datasets.sources import open_source
from latentset.datasets.sources.resize import ResizeRule
from latentset.pipeline.decode.decode import decode
from latentset.pipeline.encode.encode import EncodeOptions, encode
from latentset.pipeline.jobs.options import JobOptions
from tests.makers.standin import ENGINE
from tests.makers.workers import thread_workers


def decode_whole(store: Path, scratch: Path) -> str:
    """Decode with the stand-in codec; returns ``decoded`` or the error's name."""
    with thread_workers() as scheduler:
        try:
            decode(store, scratch / "pixels.zarr", JobOptions(scheduler=scheduler, engine=ENGINE))
        except LatentSetError as error:
            return type(error).__name__
        return "decoded"


def store_thumbnails(images: Path, store: Path) -> int:
    """Make a store of pixels of images that are resized to 32x32; return how many it has."""
    with thread_workers(1) as scheduler:
        options = EncodeOptions(scheduler=scheduler, resize=ResizeRule.parse("exact:32"))
        return len(encode(open_source(images), store, "none", options).store.indices())
