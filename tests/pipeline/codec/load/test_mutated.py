"""Metagraphs changed at random: refused or loaded, within time and memory.

``LATENTSET_FUZZ_SECONDS`` sets how long (docs/codecs.md, Security); a finding names its seed, which
``python -m tests.makers.mutating`` repeats.
"""

import os
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.codec import load_codec
from latentset.pipeline.tensorflow_setup import tf
from tests.makers import by_hand, graphs, mutating
from tests.makers.published import build_published

SECONDS = float(os.environ.get("LATENTSET_FUZZ_SECONDS", "0"))
COUNT = 40
"""Inputs of a process, and of the test if it is given no time."""
LIMIT_S = 400
"""Of a process; a codec whose graph never ends is refused after about 70 s."""


@pytest.fixture(scope="module")
def files(weights: by_hand.Weights, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("metagraphs")
    made = {
        "v1": graphs.build_v1(weights),
        "functional": graphs.build_v1(weights, functional=True),
        "v2": graphs.build_v2(weights),
        "calls": graphs.build_v2(weights, calls=True),
        "published": build_published(),
    }
    for name, metagraph in made.items():
        (folder / name).write_bytes(metagraph.SerializeToString())
    return [folder / name for name in made]


def test_changed_at_random(files: list[Path], tmp_path: Path) -> None:
    ends: list[str] = []
    started = time.monotonic()
    first = begin = secrets.randbelow(1 << 40) if SECONDS else 0  # others each time
    while first < begin + COUNT or time.monotonic() - started < SECONDS:
        command = [sys.executable, "-m", "tests.makers.mutating", *map(str, files)]
        done = subprocess.run(
            [*command, "--first", str(first), "--count", str(COUNT)],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        lines = done.stdout.splitlines()
        if done.returncode:
            # What ends the process is refused where a file is loaded.
            lines.append(_load_fatal(files, int(lines[-1].removeprefix("seed ")), tmp_path))
        found = dict(zip(lines[::2], lines[1::2], strict=True))
        ends += found.values()
        escaped = {seed: end for seed, end in found.items() if end.startswith("escaped")}
        assert not escaped
        first += len(found)
    assert len(ends) == first - begin
    assert {re.split("[: ]", end)[0] for end in ends} == {"refused", "loaded"}
    fatal = sum("ends TensorFlow's process" in end for end in ends)
    print(f"{len(ends)} inputs, {ends.count('loaded')} loaded, {fatal} end TensorFlow, no finding")


def _load_fatal(files: list[Path], seed: int, folder: Path) -> str:
    path = folder / f"{seed}.metagraph"
    path.write_bytes(mutating.mutated(files, seed))
    with pytest.raises(CodecGraphError, match="ends TensorFlow's process") as caught:
        load_codec(str(path), cache=folder)
    return f"refused: {caught.value}"


def test_what_escapes_is_seen(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail."""
    from latentset.pipeline.codec.load import metagraph

    data = files[0].read_bytes()
    assert mutating.load(data) == "loaded"
    changed = tf.compat.v1.MetaGraphDef.FromString(data)
    changed.signature_def["sender"].outputs["channel:0"].dtype = 9999
    assert mutating.load(changed.SerializeToString()).startswith("refused: mutated: expected")
    monkeypatch.setattr(metagraph, "_PORT_TYPES", {9999, *metagraph._PORT_TYPES})
    assert mutating.load(changed.SerializeToString()).startswith("escaped: Traceback")
