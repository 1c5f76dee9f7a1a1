"""The first load of a codec's file, in a process of its own.

TensorFlow's kernels end the process for some inputs (a transposed convolution of a negative size,
an index of a list that is no scalar), and a graph from elsewhere may compute such inputs.
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from latentset.datasets.errors import CodecGraphError, StoreError
from latentset.pipeline.codec.catalogue import cache_folder, shipped_codecs

TIME_S = 900
"""Seconds until the process is killed; a run of a graph has a limit of a minute itself."""

_LOAD = """
import json, pathlib, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from latentset.datasets.errors import LatentSetError
from latentset.pipeline.codec.load.codec import Codec
from latentset.pipeline.codec.load.metagraph import read_codec_file
path, tensors = sys.argv[1:]
try:
    Codec(read_codec_file(pathlib.Path(path)), tensors=json.loads(tensors)).check_decoding()
except (LatentSetError, MemoryError):
    pass  # whoever loads it next is told
"""


def try_once(
    path: Path, sha256: str, *, tensors: Mapping[str, str], cache: Path | None = None
) -> None:
    """Load a codec and decode with it in another process; CodecGraphError if that was ended.

    Shipped codecs are not tried, and a file not again that is remembered in the cache folder.
    """
    if path in shipped_codecs().values():
        return
    try:
        done = cache_folder(cache) / "tried" / sha256
    except StoreError:  # no home
        done = None
    if done is not None and done.exists() and not tensors:
        return
    command = [sys.executable, "-c", _LOAD, str(path), json.dumps(dict(tensors))]
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIME_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise CodecGraphError(f"{path}: its graph was not loaded in {TIME_S} s") from None
    if ended.returncode < 0:
        reasons = re.findall(r": F tensorflow/.*?\] (.*)", ended.stderr.decode("utf-8", "replace"))
        why = ": ".join([signal.Signals(-ended.returncode).name, *reasons[-1:]])
        raise CodecGraphError(
            f"{path}: its graph ends TensorFlow's process ({why}): it cannot be used"
        )
    if done is not None and not tensors:
        with suppress(OSError):
            done.parent.mkdir(parents=True, exist_ok=True)
            done.touch()
