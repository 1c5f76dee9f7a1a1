"""Metagraphs of bad form are refused before anything of them is searched, inlined or run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.allowed_ops import RANGE_CODER_OPS
from latentset.pipeline.codec.load.codec import Codec
from latentset.pipeline.codec.load.graph_form import check_form
from latentset.pipeline.codec.load.metagraph import (
    MAX_FILE_BYTES,
    parse_codec_file,
    read_codec_file,
)
from latentset.pipeline.tensorflow_setup import tf, tfc
from tests.makers import by_hand, graphs

INT32, FLOAT = tf.int32.as_datatype_enum, tf.float32.as_datatype_enum


@pytest.fixture(scope="module")
def metagraphs(weights: by_hand.Weights, v1_path: Path, v2_path: Path) -> dict[str, Any]:
    read = tf.compat.v1.MetaGraphDef.FromString
    return {
        "v1": read(v1_path.read_bytes()),
        "v2": read(v2_path.read_bytes()),
        "calls": graphs.build_v2(weights, calls=True),
    }


def _refused(metagraph: Any, change: Callable[[Any, dict[str, Any]], None]) -> str:
    changed = type(metagraph)()
    changed.CopyFrom(metagraph)
    change(changed, {node.name: node for node in changed.graph_def.node})
    with pytest.raises(CodecGraphError) as caught:
        parse_codec_file(changed.SerializeToString(), "bad")
    return str(caught.value)


def _first(nodes: dict[str, Any], *ops: str) -> Any:
    return next(node for node in nodes.values() if node.op in ops)


@pytest.mark.parametrize("coder", ["UnboundedIndexRangeEncode", "UnboundedIndexRangeDecode"])
@pytest.mark.parametrize("op", ["Identity", "Cast", "Merge", "Enter", "Squeeze"])
def test_cycles_before_and_behind_a_coder(op: str, coder: str, metagraphs: dict[str, Any]) -> None:
    def add_cycle(metagraph: Any, nodes: dict[str, Any]) -> None:
        taker, output = _first(nodes, coder), "round"
        for name, before in (("round", "about"), ("about", "round")):
            node = metagraph.graph_def.node.add(name=name, op=op, input=[before])
            for key in ("T", "SrcT", "DstT"):
                node.attr[key].type = INT32
            node.attr["N"].i = 1
            node.attr["frame_name"].s = b"frame"
        if coder.endswith("Decode"):  # behind it: what takes its symbols
            taker = next(n for n in nodes.values() if taker.name in n.input)
            k = list(taker.input).index(_first(nodes, coder).name)
            taker.input[k] = output
        else:
            taker.input[0] = output

    assert "the graph has a cycle: " in _refused(metagraphs["v1"], add_cycle)


def test_a_loop_without_a_start(metagraphs: dict[str, Any]) -> None:
    def keep_back_edge(_: Any, nodes: dict[str, Any]) -> None:
        merge = _first(nodes, "Merge")
        (back,) = [n for n in merge.input if nodes[n].op == "NextIteration"]
        merge.input[:] = [back]
        merge.attr["N"].i = 1

    assert "a loop without a start" in _refused(metagraphs["v1"], keep_back_edge)


def test_a_loop_that_ends_elsewhere_than_in_merge(metagraphs: dict[str, Any]) -> None:
    def bypass(_: Any, nodes: dict[str, Any]) -> None:
        merge = _first(nodes, "Merge")
        (back,) = [n for n in merge.input if nodes[n].op == "NextIteration"]
        for node in nodes.values():
            if node.op == "Switch":
                node.input[:] = [back if n == merge.name else n for n in node.input]

    assert "the graph has a cycle" in _refused(metagraphs["v1"], bypass)


@pytest.mark.parametrize(
    ("op", "text"),
    [
        ("NextIteration", "it is in no loop"),  # crashed TensorFlow's executor
        ("Exit", "it is in no loop"),
        ("Enter", "its inputs are of different loops"),
    ],
)
def test_loop_ops_outside_of_loops(op: str, text: str, metagraphs: dict[str, Any]) -> None:
    def change(_: Any, nodes: dict[str, Any]) -> None:
        node = next(n for n in nodes.values() if n.op == "Relu")
        node.op = op
        node.attr["frame_name"].s = b"frame"

    assert text in _refused(metagraphs["v2"], change)


def test_a_loop_that_ends_nowhere(metagraphs: dict[str, Any]) -> None:
    def bypass(_: Any, nodes: dict[str, Any]) -> None:
        merge = _first(nodes, "Merge")
        merge.input[:] = [n for n in merge.input if nodes[n].op != "NextIteration"]
        merge.attr["N"].i = 1

    assert "expected a loop to end in Merge" in _refused(metagraphs["v1"], bypass)


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("steps", [1, 2])
def test_functions_that_call_themselves(
    steps: int, by_name: bool, metagraphs: dict[str, Any]
) -> None:
    def call(metagraph: Any, _: dict[str, Any]) -> None:
        functions = metagraph.graph_def.library.function[:steps]
        for function, called in zip(functions, [*functions[1:], functions[0]], strict=True):
            name, signature = called.signature.name, called.signature
            node = function.node_def.add(name="again", op=name if by_name else "PartitionedCall")
            node.attr["f"].func.name = name
            for key, args in (("Tin", signature.input_arg), ("Tout", signature.output_arg)):
                node.attr[key].list.type.extend(arg.type for arg in args)

    assert "functions call themselves: " in _refused(metagraphs["calls"], call)


def test_functions_that_double_at_each_call(metagraphs: dict[str, Any]) -> None:
    def double(metagraph: Any, _: dict[str, Any]) -> None:
        library = metagraph.graph_def.library
        for k in range(20):
            function = library.function.add()
            function.signature.name = f"double_{k}"
            for copy in "ab":
                node = function.node_def.add(name=copy, op="NoOp")
                if k:
                    node.op = f"double_{k - 1}"

    assert "expected at most 20,000 nodes, got " in _refused(metagraphs["v2"], double)


@pytest.mark.parametrize("shape", [[70_000, 70_000], [1 << 20, 1 << 20], [1 << 40, 1 << 40]])
@pytest.mark.parametrize("where", ["v2", "calls"])
def test_constants_that_stand_for_gigabytes(
    where: str, shape: list[int], metagraphs: dict[str, Any]
) -> None:
    def grow(metagraph: Any, _: dict[str, Any]) -> None:
        nodes = metagraph.graph_def.node
        if where == "calls":
            nodes = metagraph.graph_def.library.function[0].node_def
        node = nodes.add(name="splat", op="Const")
        node.attr["dtype"].type = FLOAT
        tensor = node.attr["value"].tensor
        tensor.dtype = FLOAT
        tensor.float_val.append(1.0)
        for size in shape:
            tensor.tensor_shape.dim.add().size = size

    count = f"{4 * shape[0] * shape[1]:,}"
    assert f"Const 'splat': its value takes {count} bytes" in _refused(metagraphs[where], grow)


def test_many_constants_count_together(metagraphs: dict[str, Any]) -> None:
    def add(metagraph: Any, _: dict[str, Any]) -> None:
        for k in range(6):
            node = metagraph.graph_def.node.add(name=f"splat_{k}", op="Const")
            node.attr["dtype"].type = tf.int8.as_datatype_enum
            node.attr["value"].tensor.dtype = tf.int8.as_datatype_enum
            node.attr["value"].tensor.tensor_shape.dim.add().size = 100_000_000

    assert "expected at most 536,870,912 bytes of constants" in _refused(metagraphs["v2"], add)


def test_a_fill_of_gigabytes(metagraphs: dict[str, Any]) -> None:
    from latentset.pipeline.codec.load.program import Program

    with tf.Graph().as_default() as graph:
        tf.identity(tf.fill([50_000, 50_000], 1.0), name="wide")
    with pytest.raises(CodecGraphError, match="Fill 'Fill' makes a tensor of shape"):
        Program(graph.as_graph_def(), [], ["wide:0"])


@pytest.mark.parametrize("dtype", [0, 20, 9999])
@pytest.mark.parametrize("side", ["sender", "receiver"])
def test_types_of_a_signature(side: str, dtype: int, metagraphs: dict[str, Any]) -> None:
    def change(metagraph: Any, _: dict[str, Any]) -> None:
        signature = metagraph.signature_def[side]
        ports = signature.outputs if side == "sender" else signature.inputs
        ports["channel:2"].dtype = dtype

    text = _refused(metagraphs["v1"], change)
    assert f"expected 'channel:2' to hold numbers or strings, got the type {dtype}" in text


def test_a_signature_that_is_not_the_graphs(metagraphs: dict[str, Any]) -> None:
    def change(metagraph: Any, _: dict[str, Any]) -> None:
        metagraph.signature_def["receiver"].outputs["output_image"].dtype = FLOAT

    assert "to be float32, the graph's is uint8" in _refused(metagraphs["v1"], change)


def test_a_receiver_of_other_channels(metagraphs: dict[str, Any]) -> None:
    changed = tf.compat.v1.MetaGraphDef.FromString(metagraphs["v2"].SerializeToString())
    del changed.signature_def["receiver"].inputs["channel:4"]
    codec = Codec(parse_codec_file(changed.SerializeToString(), "bad"))
    with pytest.raises(CodecGraphError, match="bad: expected 'receiver' to take what 'sender'"):
        codec.check_decoding()
    changed.signature_def["receiver"].outputs.clear()
    with pytest.raises(CodecGraphError, match="expected 'receiver' to have one output, it has: n"):
        parse_codec_file(changed.SerializeToString(), "bad")


@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize(
    ("form", "op"),
    [
        ("v1", "UnboundedIndexRangeEncode"),
        ("v1", "UnboundedIndexRangeDecode"),
        ("v2", "EntropyEncodeIndex"),
        ("v2", "EntropyEncodeChannel"),
        ("v2", "CreateRangeEncoder"),
        ("v1", "Floor"),
        ("v2", "Sub"),
    ],
)
def test_too_few_inputs(form: str, op: str, left: int, metagraphs: dict[str, Any]) -> None:
    def drop(_: Any, nodes: dict[str, Any]) -> None:
        node = _first(nodes, op)
        del node.input[left if len(node.input) > 1 else 0 :]

    assert f"{op} " in (text := _refused(metagraphs[form], drop))
    assert " inputs, got " in text


@pytest.mark.parametrize("name", ["", "a:b:c", "x:-1", "^", "nowhere", "Floor:7", "ü:0"])
def test_references_that_lead_nowhere(name: str, metagraphs: dict[str, Any]) -> None:
    def change(_: Any, nodes: dict[str, Any]) -> None:
        _first(nodes, "Floor").input[0] = name

    assert (
        "no node" in (text := _refused(metagraphs["v1"], change))
        or "no output" in text
        or ("expected " in text)
    )


def test_other_damage(metagraphs: dict[str, Any]) -> None:
    def rename(_: Any, nodes: dict[str, Any]) -> None:
        nodes["input_image"].name = _first(nodes, "Floor").name

    def drop_type(_: Any, nodes: dict[str, Any]) -> None:
        del _first(nodes, "Floor").attr["T"]

    def count(_: Any, nodes: dict[str, Any]) -> None:
        _first(nodes, "Pack").attr["N"].i = 1 << 40

    def wrong(_: Any, nodes: dict[str, Any]) -> None:
        _first(nodes, "Floor").input[0] = "input_image"

    def cut(_: Any, nodes: dict[str, Any]) -> None:
        tensor = next(n for n in nodes.values() if n.attr["value"].tensor.tensor_content)
        tensor.attr["value"].tensor.tensor_content = b"123"

    def stride(_: Any, nodes: dict[str, Any]) -> None:
        slicing = _first(nodes, "StridedSlice")
        nodes[slicing.input[3]].attr["value"].tensor.int_val[:] = [2**31 - 1]

    expected = {
        "expected strides up to 65,536": stride,
        "two nodes have the name": rename,
        "it has no attribute 'T'": drop_type,
        "expected 0 to 1,000 tensors, got 1,099,511,627,776": count,
        "to be float32, it is uint8": wrong,
        "its value is damaged": cut,
    }
    for text, change in expected.items():
        assert text in _refused(metagraphs["v1"], change)


def test_a_shape_of_many_dimensions() -> None:
    """TensorFlow's kernel aborted the process."""
    graph_def = tf.compat.v1.GraphDef()
    for name, op, inputs in (("x", "Const", []), ("s", "Const", []), ("r", "Reshape", ["x", "s"])):
        node = graph_def.node.add(name=name, op=op, input=inputs)
        node.attr["dtype"].type = node.attr["T"].type = node.attr["Tshape"].type = INT32
        value = tf.make_tensor_proto([1] * 255 if name == "s" else [1], tf.int32)
        node.attr["value"].tensor.CopyFrom(value)
    with pytest.raises(CodecGraphError, match="Reshape 'r': a shape of 255 dimensions"):
        check_form(graph_def)


def test_rows_beyond_the_table(metagraphs: dict[str, Any]) -> None:
    """tfc's decoder read beyond it, and crashed."""
    changed = tf.compat.v1.MetaGraphDef.FromString(metagraphs["v1"].SerializeToString())
    nodes = {node.name: node for node in changed.graph_def.node}
    limits = [nodes[n.input[1]] for n in nodes.values() if n.op == "Range"]
    (limit,) = [n for n in limits if n.name == "range_1/limit"]  # z's channels in the receiver
    limit.attr["value"].tensor.int_val[:] = [9999]
    codec = Codec(parse_codec_file(changed.SerializeToString(), "bad"))
    with pytest.raises(CodecGraphError, match="bad: the codec's graph failed: "):
        codec.check_decoding()


def test_latents_that_are_no_numbers(metagraphs: dict[str, Any]) -> None:
    """The range encoder would not end."""
    changed = tf.compat.v1.MetaGraphDef.FromString(metagraphs["v1"].SerializeToString())
    nodes = {node.name: node for node in changed.graph_def.node}
    divisor = nodes[_first(nodes, "RealDiv").input[1]]
    divisor.attr["value"].tensor.float_val[:] = [0.0]
    with pytest.raises(CodecGraphError, match="expected y_hat from -16,777,216 to 16,777,216"):
        Codec(parse_codec_file(changed.SerializeToString(), "bad"))


def test_a_file_of_terabytes(tmp_path: Path) -> None:
    path = tmp_path / "sparse.metagraph"
    with path.open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(CodecGraphError, match=f"at most {MAX_FILE_BYTES:,} bytes"):
        read_codec_file(path)


def test_range_coders_are_those_of_tfc() -> None:
    """Their arity is known without tfc, which takes seconds to import."""
    from tensorflow.python.framework import op_def_registry

    tfc.PackedTensors()
    for op in RANGE_CODER_OPS:
        definition = op_def_registry.get(op)
        for extra in (-1, 1):
            graph_def = tf.compat.v1.GraphDef()
            count = len(definition.input_arg)
            for k in range(count + 1):
                node = graph_def.node.add(name=f"in_{k}", op="Placeholder")
                node.attr["dtype"].type = INT32
            names = [f"in_{k}" for k in range(count)]
            coder = graph_def.node.add(name="coder", op=op, input=names)
            nodes = check_form(graph_def)
            nodes.resolve(f"coder:{len(definition.output_arg) - 1}")
            with pytest.raises(CodecGraphError, match="has no output"):
                nodes.resolve(f"coder:{len(definition.output_arg)}")
            coder.input[:] = [f"in_{k}" for k in range(count + extra)]
            with pytest.raises(CodecGraphError, match=f"expected {count} inputs, got"):
                check_form(graph_def)
