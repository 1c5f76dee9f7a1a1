"""The graphs that the loader is tested on have the tensors of the published codecs, one by one."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from latentset.pipeline.tensorflow_setup import tf
from tests.makers.published import build_published

NAMES = [f"{metric}-{quality}" for metric in ("msssim", "mse") for quality in range(1, 9)]

FOLDED = re.compile(r"/_\d+__cf__\d+(?=:)")
"""What constant folding has put behind the names of constants, with a counter of its own: the
published files were folded when they were exported, and the same constants come unfolded here."""

UNUSED = "unused_control_flow_input"
"""Placeholders that are in no file: the lister's pruning makes them of tensors that it has cut, as
many and in such an order as its sets have them (the sixteen listings differ in it, and so do two
runs)."""


def read_listing(path: Path) -> dict[str, set[str]]:
    sender, receiver = path.read_text().split("Receiver-side tensors:")
    return {
        side: {
            FOLDED.sub("", line)
            for line in text.splitlines()
            if line.strip() and not line.startswith((UNUSED, "Sender-side"))
        }
        for side, text in (("sender", sender), ("receiver", receiver))
    }


def list_tensors(imported: Any, signature: Any) -> set[str]:
    """As tfci.py of tensorflow/compression lists them."""
    inputs, outputs = (
        [imported.graph.as_graph_element(ports[key].name) for key in sorted(ports)]
        for ports in (signature.inputs, signature.outputs)
    )
    graph = imported.prune(inputs, outputs).graph
    tensors = [tensor for op in graph.get_operations() for tensor in op.outputs]
    return {
        f"{t.name} (dtype={t.dtype.name}, shape={t.shape})"
        for t in tensors
        if not t.name.startswith(UNUSED)
    }


@cache
def built(N: int, M: int, z_width: int) -> dict[str, set[str]]:
    metagraph = build_published(N, M, z_width=z_width)
    imported = tf.compat.v1.wrap_function(
        lambda: tf.compat.v1.train.import_meta_graph(metagraph), []
    )
    sides = ("sender", "receiver")
    return {side: list_tensors(imported, metagraph.signature_def[side]) for side in sides}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_tensor_of_the_published_graph(name: str, real_images: Path) -> None:
    expected = read_listing(real_images / "published-graphs" / f"{name}.txt")
    N, M = (192, 320) if name[-1] in "678" else (128, 192)
    (width,) = re.findall(
        r"side_entropy_model/pmf_to_cdf/stack:0 .*, (\d+)\)\)", "\n".join(expected["sender"])
    )
    found = built(N, M, int(width))
    for side, tensors in expected.items():
        assert len(tensors) == {"sender": 468, "receiver": 721}[side]
        assert found[side] == tensors
