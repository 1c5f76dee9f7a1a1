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
from latentset.datasets.store.digests import sha256_of
from latentset.pipeline.codec.catalogue import cache_folder, shipped_codecs

TIME_S = 900
"""Seconds until the process is killed; a run of a graph has a limit of a minute itself."""

_LOAD = """
import contextlib, ctypes, json, pathlib, resource, signal, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: end with what started this
from latentset.datasets.errors import LatentSetError
from latentset.pipeline.codec.load.codec import Codec
from latentset.pipeline.codec.load.metagraph import read_codec_file
path, tensors = sys.argv[1:]
try:
    codec = Codec(read_codec_file(pathlib.Path(path)), tensors=json.loads(tensors))
except (LatentSetError, MemoryError):
    sys.exit(3)  # refused; whoever loads it next is told why
with contextlib.suppress(LatentSetError, MemoryError):
    codec.check_decoding()
"""

_REFUSED = 3


def try_once(
    path: Path, sha256: str, *, tensors: Mapping[str, str], cache: Path | None = None
) -> None:
    """Load a codec and decode with it in another process; CodecGraphError if that was ended.

    Shipped codecs are not tried, and a file not again that is remembered in the cache folder.
    """
    if path in shipped_codecs().values():
        return
    named = json.dumps(dict(tensors), sort_keys=True)
    done = None
    with suppress(StoreError, OSError):  # no home, or one that cannot be read
        key = sha256_of((sha256 + named).encode()) if tensors else sha256
        done = cache_folder(cache) / "tried" / key
        if done.exists():
            return
    # -P: what lies in the current folder is not imported.
    command = [sys.executable, "-P", "-c", _LOAD, str(path), named]
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIME_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise CodecGraphError(f"{path}: its graph was not loaded in {TIME_S} s") from None
    text = ended.stderr.decode("utf-8", "replace")
    if ended.returncode in (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGFPE):
        reasons = re.findall(r": F tensorflow/.*?\] (.*)", text)
        why = ": ".join([signal.Signals(-ended.returncode).name, *reasons[-1:]])
        raise CodecGraphError(
            f"{path}: its graph ends TensorFlow's process ({why}): it cannot be used"
        )
    if ended.returncode == _REFUSED:
        return
    if ended.returncode:
        last = (text.splitlines() or ["perhaps for lack of memory"])[-1]
        raise CodecGraphError(
            f"{path}: its first load, in a process of its own, ended with status "
            f"{ended.returncode}: {last}. Run the same command again"
        )
    if done is not None:
        with suppress(OSError):
            done.parent.mkdir(parents=True, exist_ok=True)
            done.touch()
