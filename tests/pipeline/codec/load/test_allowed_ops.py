"""A codec is a program from elsewhere: what it may hold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latentset.datasets.errors import CodecGraphError, ForbiddenOpError
from latentset.pipeline.codec.load.allowed_ops import RANGE_CODER_OPS, STOCK_OPS
from latentset.pipeline.codec.load.codec import Codec
from latentset.pipeline.codec.load.metagraph import parse_codec_file
from latentset.pipeline.tensorflow_setup import tf, tfc
from tests.makers import by_hand, graphs


def _load(metagraph: Any) -> Codec:
    return Codec(parse_codec_file(metagraph.SerializeToString(), "planted"))


def _write(target: Path) -> Callable[[Any], Any]:
    return lambda image: tf.io.write_file(str(target), tf.strings.as_string(image[0, 0, 0, 0]))


def test_write_file_on_the_way_is_refused_and_not_run(
    weights: by_hand.Weights, tmp_path: Path
) -> None:
    target = tmp_path / "written"
    metagraph = graphs.build_v1(weights, plant=_write(target))
    with pytest.raises(ForbiddenOpError, match=r"planted: ops .* WriteFile \(node 'WriteFile'\)"):
        _load(metagraph)
    assert not target.exists()


def test_the_planted_graph_would_have_written(weights: by_hand.Weights, tmp_path: Path) -> None:
    """The test above could fail: run by TensorFlow alone, the same graph writes the file."""
    target = tmp_path / "written"
    file = parse_codec_file(
        graphs.build_v1(weights, plant=_write(target)).SerializeToString(), "planted"
    )
    tfc.PackedTensors()  # registers the ops
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(file.metagraph.graph_def, name="")
        session.run("Cast_2:0", {file.input_tensor: np.zeros((1, 64, 64, 3), np.uint8)})
    assert target.exists()


def test_write_file_off_the_way_is_refused(weights: by_hand.Weights, tmp_path: Path) -> None:
    metagraph = graphs.build_v1(weights)
    with tf.Graph().as_default() as graph:
        tf.io.write_file(str(tmp_path / "written"), "text", name="aside")
    metagraph.graph_def.node.extend(graph.as_graph_def().node)
    with pytest.raises(ForbiddenOpError, match=r"codec: WriteFile \(node 'aside'\)"):
        _load(metagraph)


def test_read_file_in_the_receiver_is_refused(weights: by_hand.Weights) -> None:
    metagraph = graphs.build_v1(weights)
    with tf.Graph().as_default() as graph:
        tf.io.read_file("/etc/hostname", name="secret")
    metagraph.graph_def.node.extend(graph.as_graph_def().node)
    output = metagraph.signature_def["receiver"].outputs["output_image"].name.partition(":")[0]
    next(n for n in metagraph.graph_def.node if n.name == output).input.append("^secret")
    with pytest.raises(ForbiddenOpError, match=r"codec: ReadFile \(node 'secret'\)"):
        _load(metagraph)


def test_write_file_in_a_function_is_refused(weights: by_hand.Weights, tmp_path: Path) -> None:
    target = tmp_path / "written"

    def plant(image: Any) -> Any:
        @tf.function  # type: ignore[untyped-decorator]
        def harmless(x: Any) -> Any:
            tf.io.write_file(str(target), "text")
            return x

        return harmless(image).op

    metagraph = graphs.build_v1(weights, plant=plant)
    with pytest.raises(ForbiddenOpError, match="codec: WriteFile"):
        _load(metagraph)
    assert not target.exists()


def test_a_function_that_nothing_calls_is_checked_too(
    weights: by_hand.Weights, tmp_path: Path
) -> None:
    @tf.function  # type: ignore[untyped-decorator]
    def write() -> None:
        tf.io.write_file(str(tmp_path / "written"), "text")

    with tf.Graph().as_default() as graph:
        write()
    # Inlining drops functions that nothing calls: the check must come before it.
    metagraph = graphs.build_v2(weights, calls=True)
    metagraph.graph_def.library.function.extend(graph.as_graph_def().library.function)
    with pytest.raises(ForbiddenOpError, match="codec: WriteFile"):
        _load(metagraph)


def test_python_is_refused(weights: by_hand.Weights) -> None:
    called = []

    def plant(image: Any) -> Any:
        return tf.compat.v1.py_func(lambda: called.append(1) or 1, [], tf.int64).op  # type: ignore[func-returns-value]

    with pytest.raises(ForbiddenOpError, match="codec: PyFunc"):
        _load(graphs.build_v1(weights, plant=plant))
    assert called == []


def test_a_function_cannot_take_the_name_of_an_op(weights: by_hand.Weights) -> None:
    metagraph = graphs.build_v1(weights)
    metagraph.graph_def.library.function.add().signature.name = "ReadFile"
    node = metagraph.graph_def.node.add(name="hidden", op="ReadFile")
    node.input.append(metagraph.graph_def.node[0].name)
    with pytest.raises(ForbiddenOpError, match=r"codec: ReadFile \(node 'hidden'\)"):
        _load(metagraph)


def test_a_call_of_what_is_not_in_the_file_is_refused(weights: by_hand.Weights) -> None:
    metagraph = graphs.build_v2(weights, calls=True)
    del metagraph.graph_def.library.function[:]
    with pytest.raises(ForbiddenOpError, match="which is not in the file"):
        _load(metagraph)


def test_variables_are_refused_with_what_to_do(weights: by_hand.Weights) -> None:
    def plant(image: Any) -> Any:
        return tf.compat.v1.get_variable("kernel", (3,), use_resource=True).read_value().op

    with pytest.raises(CodecGraphError, match=r"weights are variables .* Freeze them") as caught:
        _load(graphs.build_v1(weights, plant=plant))
    assert not isinstance(caught.value, ForbiddenOpError)


def test_what_a_saver_left_is_let_be(weights: by_hand.Weights) -> None:
    metagraph = graphs.build_v1(weights)
    with tf.Graph().as_default() as graph:
        tf.compat.v1.get_variable("step", (), use_resource=False)
        tf.compat.v1.train.Saver()
    nodes = [n for n in graph.as_graph_def().node if n.op != "Const"]
    names = {n.name for n in nodes}
    assert {"SaveV2", "RestoreV2", "VariableV2"} <= {n.op for n in nodes}
    constants = [n for n in graph.as_graph_def().node if n.name not in names]
    for node in [*nodes, *constants]:
        if not any("initializer" in name.lower() for name in (node.name, *node.input)):
            metagraph.graph_def.node.add().CopyFrom(node)
    assert _load(metagraph).info.channels == by_hand.M


def test_no_listed_op_reaches_outside() -> None:
    """Every listed op exists, and none is of TensorFlow's op families that touch the outside."""
    from tensorflow.python.framework import op_def_registry

    tfc.PackedTensors()
    for op in STOCK_OPS | RANGE_CODER_OPS:
        assert op_def_registry.get(op) is not None, op
    words = "File Dataset PyFunc Variable Reader Queue Table Save Restore Summary Print Rpc Stage"
    assert not [op for op in STOCK_OPS for word in words.split() if word in op]
    stateful = {op for op in STOCK_OPS if op_def_registry.get(op).is_stateful}
    loops = {"If", "While", "StatefulPartitionedCall", "Assert", "CheckNumerics"}
    assert {op for op in stateful if not op.startswith("TensorArray")} <= loops
