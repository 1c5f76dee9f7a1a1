"""Metagraphs that nobody exports: real ones, changed at random, loaded in a process of limits.

``python -m tests.makers.mutating FILE... --first SEED --count N`` prints each seed before it is
tried, and how it ended.
"""

import argparse
import io
import random
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEMORY_BYTES = 12 << 30
"""Of address space; TensorFlow alone maps 4 GB."""

EXTREMES = [0, 1, -1, 2, 7, 255, 256, 9999, 65536, 2**31 - 1, -(2**31), 10**9, 2**62]
NUMBERS = [0.0, -0.0, 1.0, -1.0, 1e-45, 3e38, float("inf"), float("nan")]
TEXTS = ["", ":", "^", "a:b:c", "x:99", "^x:1", "\x1b[31m", "[/x]", "ü" * 300, "node:-1", "::::"]


def mutate(metagraph: Any, rng: random.Random) -> bytes:
    """Change a copy of a ``MetaGraphDef`` in one to three places, or its bytes."""
    changed = type(metagraph)()
    changed.CopyFrom(metagraph)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        rng.choice(MUTATIONS)(changed, rng)
    data = bytearray(changed.SerializeToString())
    if rng.random() < 0.05 and data:
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.02:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


def _nodes(metagraph: Any, rng: random.Random) -> Any:
    """The nodes of the graph, or of a function."""
    bodies = [metagraph.graph_def.node]
    bodies += [f.node_def for f in metagraph.graph_def.library.function]
    return rng.choice([body for body in bodies if body] or bodies)


def _node(metagraph: Any, rng: random.Random) -> Any:
    # Small graphs of range coders among many constants: prefer what is no constant.
    nodes = _nodes(metagraph, rng)
    found = [node for node in nodes if node.op != "Const"] if rng.random() < 0.8 else list(nodes)
    if coders := [node for node in found if "Range" in node.op or "Entropy" in node.op]:
        found = coders if rng.random() < 0.2 else found
    return rng.choice(found or list(nodes))


def change_input(metagraph: Any, rng: random.Random) -> None:
    """Drop, repeat, rewire or garble an input."""
    node, other = _node(metagraph, rng), _node(metagraph, rng)
    k = rng.randrange(len(node.input)) if node.input else None
    name = rng.choice([node.name, other.name, f"{other.name}:1", "^" + other.name, *TEXTS])
    match rng.randrange(4), k:
        case 0, int():
            del node.input[k]
        case 1, int():
            node.input.append(node.input[k])
        case 2, _:
            node.input.insert(0, name)
        case _, int():
            node.input[k] = name
        case _:
            node.input.append(name)


def change_op(metagraph: Any, rng: random.Random) -> None:
    """Another op, mostly one that is allowed."""
    from latentset.pipeline.codec.load.allowed_ops import RANGE_CODER_OPS, SAVER_OPS, STOCK_OPS

    known = sorted(STOCK_OPS | RANGE_CODER_OPS)
    ops = [rng.choice(known), _node(metagraph, rng).op, rng.choice([*sorted(SAVER_OPS), *TEXTS])]
    _node(metagraph, rng).op = rng.choice(ops)


def insert_pass_op(metagraph: Any, rng: random.Random) -> None:
    """Put Identity, Cast or Merge on an edge, at times in a circle."""
    nodes = _nodes(metagraph, rng)
    takers = [node for node in nodes if any(not i.startswith("^") for i in node.input)]
    if not takers:
        return
    taker = rng.choice(takers)
    k = rng.choice([k for k, name in enumerate(taker.input) if not name.startswith("^")])
    op = rng.choice(["Identity", "Cast", "Merge", "Enter", "Switch", "NextIteration", "Reshape"])
    source = rng.choice([taker.input[k], taker.input[k], "new", taker.name])
    node = nodes.add(name="new", op=op, input=[source] * rng.choice([1, 1, 2]))
    dtype = rng.choice([1, 3, 3, 3, 4, 7, 9])
    for key in ("T", "SrcT", "DstT"):
        node.attr[key].type = dtype
    node.attr["N"].i = len(node.input)
    taker.input[k] = "new"


def change_attribute(metagraph: Any, rng: random.Random) -> None:
    """Delete, copy or garble an attribute."""
    node, other = _node(metagraph, rng), _node(metagraph, rng)
    if not node.attr:
        return
    key = rng.choice(sorted(node.attr))
    value = node.attr[key]
    match rng.randrange(6):
        case 0:
            del node.attr[key]
        case 1 if other.attr:
            value.CopyFrom(other.attr[rng.choice(sorted(other.attr))])
        case 2:
            value.type = rng.choice([0, 1, 3, 7, 20, 21, 23, 101, 9999])
        case 3:
            value.i = rng.choice(EXTREMES)
        case 4:
            value.func.name = rng.choice([value.func.name, *TEXTS])
        case _:
            value.shape.dim.add().size = rng.choice(EXTREMES)


def change_constant(metagraph: Any, rng: random.Random) -> None:
    """Another shape, type or other values of a constant."""
    constants = [node for node in _nodes(metagraph, rng) if node.op == "Const"]
    if not constants:
        return
    small = [c for c in constants if c.ByteSize() < 200]
    node = rng.choice(small if small and rng.random() < 0.7 else constants)
    tensor = node.attr["value"].tensor
    match rng.randrange(6):
        case 0 if tensor.tensor_shape.dim:
            rng.choice(tensor.tensor_shape.dim).size = rng.choice(EXTREMES)
        case 1:
            tensor.tensor_shape.dim.add().size = rng.choice(EXTREMES)
        case 2:
            tensor.dtype = rng.choice([0, 1, 2, 3, 4, 7, 9, 10, 21, 9999])
        case 3:
            node.attr["dtype"].type = tensor.dtype = rng.choice([1, 2, 3, 9])
        case 4 if tensor.tensor_content:
            content = bytearray(tensor.tensor_content)
            for _ in range(rng.randint(1, 16)):
                content[rng.randrange(len(content))] = rng.choice([0, 127, 128, 255])
            tensor.tensor_content = bytes(content[: rng.choice([len(content), len(content) // 2])])
        case _:
            for field, values in ((tensor.int_val, EXTREMES), (tensor.float_val, NUMBERS)):
                if field:
                    value = rng.choice(values)
                    field[rng.randrange(len(field))] = max(-(2**31), min(2**31 - 1, value))


def change_nodes(metagraph: Any, rng: random.Random) -> None:
    """Delete, repeat or rename a node."""
    nodes = _nodes(metagraph, rng)
    k = rng.randrange(len(nodes))
    match rng.randrange(3):
        case 0:
            del nodes[k]
        case 1:
            nodes.add().CopyFrom(nodes[k])
        case _:
            nodes[k].name = rng.choice([rng.choice(nodes).name, *TEXTS])


def change_function(metagraph: Any, rng: random.Random) -> None:
    """A function that calls itself or another, with other arguments or results."""
    functions = metagraph.graph_def.library.function
    if not functions:
        return
    function, other = rng.choice(functions), rng.choice(functions)
    match rng.randrange(6):
        case 0:
            name = rng.choice([function.signature.name, other.signature.name])
            node = function.node_def.add(name="calls", op=rng.choice(["PartitionedCall", name]))
            node.attr["f"].func.name = name
            for key, args in (("Tin", other.signature.input_arg), ("Tout", ())):
                node.attr[key].list.type.extend(arg.type for arg in args)
            node.input.extend(arg.name for arg in function.signature.input_arg)
        case 1:
            calls = [n for n in metagraph.graph_def.node if "f" in n.attr]
            if calls:
                rng.choice(calls).attr["f"].func.name = other.signature.name
        case 2 if function.ret:
            del function.ret[rng.choice(sorted(function.ret))]
        case 3 if function.signature.input_arg:
            rng.choice(function.signature.input_arg).type = rng.choice([0, 1, 3, 9999])
        case 4:
            function.signature.name = rng.choice([other.signature.name, "Identity", ""])
        case _ if function.ret:
            function.ret[rng.choice(sorted(function.ret))] = rng.choice(TEXTS)


def change_signature(metagraph: Any, rng: random.Random) -> None:
    """Another type, name, shape or number of inputs and outputs."""
    signature = metagraph.signature_def[rng.choice(["sender", "receiver"])]
    ports = rng.choice([signature.inputs, signature.outputs])
    if not ports:
        return
    key = rng.choice(sorted(ports))
    match rng.randrange(5):
        case 0:
            ports[key].dtype = rng.choice([0, 1, 2, 3, 4, 7, 9, 20, 21, 9999])
        case 1:
            ports[key].name = rng.choice([_node(metagraph, rng).name, *TEXTS])
        case 2:
            del ports[key]
        case 3:
            ports[rng.choice(TEXTS)].CopyFrom(ports[key])
        case _:
            ports[key].tensor_shape.dim.add().size = rng.choice(EXTREMES)


MUTATIONS: list[Callable[[Any, random.Random], None]] = [
    change_input,
    change_input,
    change_op,
    insert_pass_op,
    change_attribute,
    change_constant,
    change_constant,
    change_nodes,
    change_function,
    change_signature,
]


def mutated(files: list[Path], seed: int) -> bytes:
    """The changed metagraph of a seed."""
    from latentset.pipeline.tensorflow_setup import tf

    data = files[seed % len(files)].read_bytes()
    return mutate(tf.compat.v1.MetaGraphDef.FromString(data), random.Random(seed))


def load(data: bytes) -> str:
    """Load a codec and print it, as ``latentset codec inspect``; return how that ended."""
    from rich.console import Console

    from latentset.datasets.errors import LatentSetError
    from latentset.pipeline.codec.load.codec import Codec
    from latentset.pipeline.codec.load.inspection import describe
    from latentset.pipeline.codec.load.metagraph import parse_codec_file

    try:
        codec = Codec(parse_codec_file(data, "mutated"))
        for part in describe(codec):
            Console(file=io.StringIO()).print(part)
    except LatentSetError as error:
        return f"refused: {error}".splitlines()[0]
    except Exception:
        return "escaped: " + traceback.format_exc()
    return "loaded"


def main() -> None:
    """Try seeds one after another; see the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for seed in range(given.first, given.first + given.count):
        print(f"seed {seed}", flush=True)
        data = mutated(given.files, seed)
        print(load(data).encode("unicode_escape").decode("ascii"), flush=True)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
