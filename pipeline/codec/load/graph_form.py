"""The form of a metagraph, checked once, before anything of it is searched, inlined or run.

A file from elsewhere may hold any protocol buffer. What passes here has nodes of known arity and
types, references that lead somewhere, no cycles but those of loops, and, with its functions
inlined, limited numbers of nodes and of bytes.
"""

import re
from collections import Counter
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

import numpy as np

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.allowed_ops import RANGE_CODER_OPS
from latentset.pipeline.codec.load.op_types import (
    ANY,
    REF_TYPES,
    called_functions,
    input_types,
    known_type,
    label,
    output_types,
    shape_inputs,
    type_name_of,
    types_of,
)
from latentset.pipeline.tensorflow_setup import tf

MAX_NODES = 20_000
"""Of a graph with its functions inlined; the published ones have some 1,000."""
MAX_CONSTANT_BYTES = 1 << 29
"""Of all constants, unpacked; a few bytes may stand for terabytes of one value."""
MAX_RANGE_CODER_OPS = 64
MAX_NESTED_CALLS = 32
MAX_NESTED_LOOPS = 8
MAX_DIMENSIONS = 64
MAX_STRIDE = 1 << 16
"""Of a slice."""

_CALLED: Mapping[str, tuple[str, str]] = {
    "f": ("Tin", "Tout"),
    "then_branch": ("Tin", "Tout"),
    "else_branch": ("Tin", "Tout"),
    "cond": ("T", ""),
    "body": ("T", "T"),
}
"""Attributes that name functions, and those that list the types of its inputs and outputs."""

_LOOP_ENDS = ("NextIteration", "RefNextIteration")
_MERGES = ("Merge", "RefMerge")
_REFERENCE = re.compile(r"([^:^]+)(?::([^:]+?))??(?::([0-9]{1,6}))?")
"""``node``, ``node:1``; in a function ``argument`` or ``node:output:1``."""


class _Size(NamedTuple):
    """Of a graph or a function, with all that it calls."""

    nodes: int
    constant_bytes: int
    range_coders: int
    nested: int


def check_form(graph_def: Any) -> "CheckedNodes":
    """Return the nodes of a ``GraphDef``; CodecGraphError unless it is well-formed and limited.

    So are its functions. Whether ops are allowed, and functions there, is checked by
    ``allowed_ops``.
    """
    functions = {function.signature.name: function for function in graph_def.library.function}
    if len(functions) < len(graph_def.library.function) or "" in functions:
        raise CodecGraphError("expected functions of different names, not empty")
    bodies = {"": graph_def.node} | {name: f.node_def for name, f in functions.items()}
    if (count := sum(map(len, bodies.values()))) > MAX_NODES:
        raise CodecGraphError(f"expected at most {MAX_NODES:,} nodes, got {count:,}")
    sizes: dict[str, _Size] = {}
    checked: dict[str, CheckedNodes] = {}
    for name in _callees_first(bodies, functions):
        arguments = functions[name].signature.input_arg if name else ()
        try:
            nodes = CheckedNodes(bodies[name], functions, arguments, in_function=bool(name))
            if name:
                nodes.check_results(functions[name])
            checked[name], sizes[name] = nodes, _limit(nodes.size(sizes))
        except CodecGraphError as error:
            raise CodecGraphError(f"function {name!r}: {error}" if name else str(error)) from None
    return checked[""]


def _callees_first(bodies: Mapping[str, Any], functions: Mapping[str, Any]) -> list[str]:
    calls = {
        name: {f.signature.name for node in body for _, f in called_functions(node, functions)}
        for name, body in bodies.items()
    }
    try:
        return list(TopologicalSorter(calls).static_order())
    except CycleError as error:
        raise CodecGraphError(f"functions call themselves: {_names(error)}") from None


def _limit(size: _Size) -> _Size:
    limits = _Size(MAX_NODES, MAX_CONSTANT_BYTES, MAX_RANGE_CODER_OPS, MAX_NESTED_CALLS)
    words = ("nodes", "bytes of constants", "range coders", "nested calls")
    for found, limit, word in zip(size, limits, words, strict=True):
        if found > limit:
            raise CodecGraphError(f"expected at most {limit:,} {word}, got {found:,}")
    return size


def _names(error: CycleError) -> str:
    names = [str(name) for name in error.args[1]]
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")


class CheckedNodes:
    """The nodes of a graph or of one function; checked as it is made."""

    def __init__(
        self, nodes: Any, functions: Mapping[str, Any], arguments: Any, *, in_function: bool
    ) -> None:
        self.nodes, self.functions, self.in_function = nodes, functions, in_function
        self.arguments = {arg.name: types_of(arg, None, None)[0] for arg in arguments}
        names = [*self.arguments, *(node.name for node in nodes)]
        if len(set(names)) < len(names):
            ((name, _),) = Counter(names).most_common(1)
            raise CodecGraphError(f"two nodes have the name {name!r}")
        self.outputs = {node.name: output_types(node, functions) for node in nodes}
        self.by_name = {node.name: node for node in nodes}
        for node in nodes:
            self._check(node)
        self._check_loops()

    def type_name(self, reference: str) -> str | None:
        """Return a tensor's type, None if that is unknown; CodecGraphError if it is not there."""
        dtype = self.resolve(reference)
        return None if dtype == ANY else type_name_of(dtype)

    def resolve(self, reference: str) -> int:
        """Return the type of a tensor, 0 if unknown; CodecGraphError if there is none."""
        name, output, index = self._parse(reference)
        if self.in_function and name in self.arguments and output is None:
            return self.arguments[name]
        if name not in self.outputs:
            raise CodecGraphError(f"the graph has no node {name!r}")
        outputs = self.outputs[name]
        if outputs is None or (self.in_function and self.by_name[name].op in RANGE_CODER_OPS):
            return ANY
        if self.in_function:
            types = next((types for own, types in outputs if own == output), ())
        else:
            types = tuple(dtype for own in outputs for dtype in own.types)
        if (output is not None and not self.in_function) or index >= len(types):
            raise CodecGraphError(f"node {name!r} has no output {reference!r}")
        return types[index]

    def _parse(self, reference: str) -> tuple[str, str | None, int]:
        found = _REFERENCE.fullmatch(reference)
        if found is None:
            raise CodecGraphError(f"expected the name of a tensor, got {reference!r:.80}")
        return found[1], found[2], int(found[3] or 0)

    def _check(self, node: Any) -> None:
        data = [name for name in node.input if not name.startswith("^")]
        for name in node.input[len(data) :]:
            if not name.startswith("^"):
                raise CodecGraphError(f"{label(node)}: control inputs before other inputs")
            if (waits := name[1:]) not in self.outputs and waits not in self.arguments:
                raise CodecGraphError(f"{label(node)}: the graph has no node {waits!r}")
        found = [self.resolve(name) for name in data]
        expected = input_types(node, self.functions)
        if expected is None:
            return
        if len(found) != len(expected):
            raise CodecGraphError(
                f"{label(node)}: expected {len(expected)} inputs, got {len(found)}"
            )
        for name, got, wanted in zip(data, found, expected, strict=True):
            if ANY not in (got, wanted) and got % REF_TYPES != wanted % REF_TYPES:
                raise CodecGraphError(
                    f"{label(node)}: expected {name!r} to be {type_name_of(wanted)}, it is "
                    f"{type_name_of(got)}"
                )
        for key, function in called_functions(node, self.functions):
            _check_call(node, key, function)
        self._check_constant_inputs(node)

    def _check_constant_inputs(self, node: Any) -> None:
        """Refuse strides and shapes that crash TensorFlow's kernels."""
        for k in range(3, 4) if node.op == "StridedSlice" else shape_inputs(node):
            source = self.by_name.get(self._parse(node.input[k])[0])
            if source is None or source.op != "Const":
                continue
            _constant_bytes(source)
            values = tf.make_ndarray(source.attr["value"].tensor)
            if values.size > MAX_DIMENSIONS:
                raise CodecGraphError(f"{label(node)}: a shape of {values.size:,} dimensions")
            if node.op == "StridedSlice" and (np.abs(values.astype(float)) > MAX_STRIDE).any():
                raise CodecGraphError(f"{label(node)}: expected strides up to {MAX_STRIDE:,}")

    def _check_loops(self) -> None:
        """Check that cycles are those of loops, and that no edge leads into a loop or out of it.

        A loop is a frame: Enter leads into it, Exit out of it, NextIteration back to its Merge.
        TensorFlow's executor may crash where that is not so.
        """
        loop_ends = {node.name for node in self.nodes if node.op in _LOOP_ENDS}
        edges: dict[str, list[str]] = {}
        back: dict[str, list[str]] = {}
        for node in self.nodes:
            sources = [self._parse(name.lstrip("^"))[0] for name in node.input]
            ends = [s for s in sources if node.op in _MERGES and s in loop_ends]
            edges[node.name] = [source for source in sources if source not in ends]
            back |= {end: [*back.get(end, ()), node.name] for end in ends}
            if ends and not edges[node.name]:
                raise CodecGraphError(f"{label(node)}: a loop without a start")
        try:
            order = list(TopologicalSorter(edges).static_order())
        except CycleError as error:
            raise CodecGraphError(f"the graph has a cycle: {_names(error)}") from None
        frames: dict[str, tuple[bytes, ...]] = dict.fromkeys(self.arguments, ())
        for node in (self.by_name[name] for name in order if name in self.by_name):
            found = {frames[source] for source in edges[node.name]} or {()}
            if len(found) > 1:
                raise CodecGraphError(f"{label(node)}: its inputs are of different loops")
            frames[node.name] = _frame_after(node, found.pop())
        for node in self.nodes:
            merges = back.get(node.name, [])
            if node.op in _LOOP_ENDS and not merges:
                raise CodecGraphError(f"{label(node)}: expected a loop to end in Merge")
            if any(frames[merge] != frames[node.name] for merge in merges):
                raise CodecGraphError(f"{label(node)}: it ends another loop than its own")

    def check_results(self, function: Any) -> None:
        """Check that a function yields what it declares."""
        for result in function.signature.output_arg:
            if result.name not in function.ret:
                raise CodecGraphError(f"it has no result {result.name!r}")
            got, (wanted,) = self.resolve(function.ret[result.name]), types_of(result, None, None)
            if got not in (wanted, ANY):
                raise CodecGraphError(f"its result {result.name!r} is {type_name_of(got)}")

    def size(self, of_functions: Mapping[str, _Size]) -> _Size:
        """Return the size with all functions inlined."""
        nodes, nested = len(self.nodes), 0
        constant_bytes = 0
        for node in self.nodes:
            if node.op == "Const" and constant_bytes <= MAX_CONSTANT_BYTES:
                constant_bytes += _constant_bytes(node)
        range_coders = sum(node.op in RANGE_CODER_OPS for node in self.nodes)
        for node in self.nodes:
            for _, function in called_functions(node, self.functions):
                called = of_functions[function.signature.name]
                nodes, range_coders = nodes + called.nodes, range_coders + called.range_coders
                constant_bytes += called.constant_bytes
                nested = max(nested, called.nested + 1)
        return _Size(nodes, constant_bytes, range_coders, nested)


def _frame_after(node: Any, frame: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The loops that the outputs of a node are in, outermost first."""
    if node.op in ("Enter", "RefEnter"):
        if len(frame) == MAX_NESTED_LOOPS:
            raise CodecGraphError(f"{label(node)}: expected at most {len(frame)} nested loops")
        return (*frame, node.attr["frame_name"].s)
    if node.op in ("Exit", "RefExit", *_LOOP_ENDS) and not frame:
        raise CodecGraphError(f"{label(node)}: it is in no loop")
    return frame[:-1] if node.op in ("Exit", "RefExit") else frame


def _check_call(node: Any, key: str, function: Any) -> None:
    if not key:
        return  # the inputs of a call by name are those of the function
    taken, yielded = _CALLED[key]
    signature = function.signature
    pairs = [("inputs", taken, signature.input_arg)]
    if yielded:
        pairs.append(("outputs", yielded, signature.output_arg))
    elif len(signature.output_arg) != 1:
        raise CodecGraphError(f"{label(node)}: expected {key} to have one output")
    for what, attribute, args in pairs:
        wanted = [arg.type for arg in args]
        if list(node.attr[attribute].list.type) != wanted:
            raise CodecGraphError(
                f"{label(node)}: its {what} are not those of the function {signature.name!r}"
            )


def _constant_bytes(node: Any) -> int:
    """Bytes of a constant, unpacked; CodecGraphError if it is damaged."""
    tensor, where = node.attr["value"].tensor, label(node)
    if tensor.dtype != node.attr["dtype"].type:
        raise CodecGraphError(f"{where}: its value is of another type")
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise CodecGraphError(f"{where}: its value has no known shape")
    dtype = tf.dtypes.as_dtype(known_type(tensor.dtype, where))
    item = dtype.size or 0
    if dtype == tf.string:
        item = 32 + max(map(len, tensor.string_val), default=0)
    count = 1
    for size in shape:
        count *= size
    if (total := count * item) > MAX_CONSTANT_BYTES:
        raise CodecGraphError(
            f"{where}: its value takes {total:,} bytes, expected {MAX_CONSTANT_BYTES:,} at most"
        )
    try:
        tf.make_ndarray(tensor)
    except (ValueError, TypeError) as error:
        raise CodecGraphError(f"{where}: its value is damaged: {error}") from None
    return total
