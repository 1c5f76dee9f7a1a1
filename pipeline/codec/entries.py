"""Where decoded symbols enter the synthesis of a codec's receiver, found from the range-decode ops.

Whatever a graph calls its tensors, what its range decoder yields are the symbols of ``y_hat`` and
``z_hat``. The ops are ``EntropyDecodeIndex`` and ``EntropyDecodeChannel`` (tensorflow-compression
2) and ``UnboundedIndexRangeDecode`` (1), the latter inside a loop over the batch. From there the
walk goes forward: out of the loop, over ``+ cdf_offset``, to the cast to floating point that ends
the integers. The graph is cut behind that cast.

Sources:
    tensorflow/compression 2.14, ``entropy_models/continuous_indexed.py`` and
    ``continuous_batched.py`` (``decompress``); 1.3, ``layers/entropy_models.py``
    (``EntropyModel.decompress``).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.graph import Graph, TensorRef, extract
from latentset.pipeline.tensorflow_setup import tf

DECODE_OPS: Mapping[str, int] = {
    "UnboundedIndexRangeDecode": 0,
    "EntropyDecodeIndex": 1,
    "EntropyDecodeChannel": 1,
}
"""Range-decode ops, and which of their outputs has the symbols."""

_INDEX_INPUT = {"UnboundedIndexRangeDecode": 1, "EntropyDecodeIndex": 1}

_PASS_OPS = frozenset(
    """
    CheckNumerics EnsureShape Enter Exit ExpandDims Identity Merge NextIteration Pack
    PreventGradient Reshape Snapshot Squeeze StopGradient StridedSlice Switch TensorArrayGatherV3
    TensorArrayWriteV3 TensorListSetItem TensorListStack
    """.split()  # noqa: SIM905 - a list of quoted names is harder to read
)
"""Ops between a range-decode op and the symbols of the batch; they change no value."""

Role = Literal["y_hat", "z_hat"]


@dataclass(frozen=True)
class Entry:
    """Where the symbols of one range-decode op enter the synthesis."""

    decoder: str
    """The range-decode node."""
    symbols: TensorRef
    """The symbols of a batch (N, h, w, C), already of floating point."""
    dtype: int
    """Its type, as TensorFlow numbers types."""


def find_entries(graph: Graph, strings: Iterable[TensorRef]) -> dict[Role, Entry]:
    """Find where the symbols of y and of z enter the synthesis.

    Args:
        graph: The flat sub-graph of the receiver.
        strings: Its inputs that are strings.

    Returns:
        Both.

    Raises:
        CodecGraphError: There are not two range-decode ops, or one does not lead to an image.
    """
    nodes = list(graph.find(*DECODE_OPS))
    sources = [ref.node for ref in strings]
    adaptive = [node for node in nodes if _is_adaptive(graph, node, sources)]
    fixed = [node for node in nodes if node not in adaptive]
    if len(adaptive) != 1 or len(fixed) != 1:
        raise CodecGraphError(
            "expected two range-decode ops in the receiver, one for y with a scale index and one "
            f"for z with fixed probabilities; found {len(adaptive)} with an index and {len(fixed)} "
            "without"
        )
    consumers = _consumers(graph)
    return {
        "y_hat": _trace(graph, consumers, adaptive[0]),
        "z_hat": _trace(graph, consumers, fixed[0]),
    }


def _is_adaptive(graph: Graph, node: Any, strings: list[str]) -> bool:
    """Whether what it decodes with depends on what was decoded before."""
    place = _INDEX_INPUT.get(node.op)
    if place is None:
        return False
    index = graph.inputs(node.name)[place]
    return any(graph.depends_on_value(index, source) for source in strings)


def _consumers(graph: Graph) -> dict[TensorRef, list[Any]]:
    """By tensor, the nodes that take it."""
    consumers: dict[TensorRef, list[Any]] = defaultdict(list)
    for node in graph.graph_def.node:
        for ref in graph.inputs(node.name):
            consumers[ref].append(node)
    return consumers


def _trace(graph: Graph, consumers: Mapping[TensorRef, list[Any]], decoder: Any) -> Entry:
    """Follow decoded symbols forward to the cast that ends the integers, and to its end."""
    start = TensorRef(decoder.name, DECODE_OPS[decoder.op])
    pending, seen = [(start, decoder.op != "UnboundedIndexRangeDecode")], {start}
    found: list[TensorRef] = []
    while pending:
        ref, offset_is_due = pending.pop()
        for node in consumers.get(ref, ()):
            due = offset_is_due
            if node.op == "Cast":
                found.append(TensorRef(node.name, 0))
                continue
            if node.op in ("Add", "AddV2") and due:
                due = False
            elif node.op not in _PASS_OPS:
                continue
            for output in range(2 if node.op == "Switch" else 1):
                following = TensorRef(node.name, output)
                if following not in seen:
                    seen.add(following)
                    pending.append((following, due))
    floats = [ref for ref in found if _cast_dtype(graph, ref).is_floating]
    if len(floats) != 1:
        raise CodecGraphError(
            f"expected the symbols of {decoder.op} {decoder.name!r} to be cast to floating point "
            f"once, found {len(floats)} casts"
        )
    return Entry(decoder.name, floats[0], _cast_dtype(graph, floats[0]).as_datatype_enum)


def _cast_dtype(graph: Graph, ref: TensorRef) -> Any:
    return tf.dtypes.as_dtype(graph.node(ref.node).attr["DstT"].type)


def placeholder(role: Role) -> str:
    """Name the placeholder of the symbols of y or z in a graph that was cut."""
    return f"latentset_{role}"


def cut(
    graph: Graph, entries: Mapping[Role, Entry], output: TensorRef, strings: Iterable[TensorRef]
) -> Any:
    """Cut a receiver behind its range decoder: placeholders stand in the place of the casts.

    Control inputs that need strings are left out: they check the range decoder.

    Args:
        graph: The flat sub-graph of the receiver.
        entries: Where symbols enter.
        output: The image.
        strings: Inputs of the receiver that are strings.

    Returns:
        The ``GraphDef`` of what the image needs.

    Raises:
        CodecGraphError: It needs strings besides.
    """
    replaced = {entry.symbols.node: placeholder(role) for role, entry in entries.items()}
    needs_strings = _dependents(graph, [ref.node for ref in strings])
    result = tf.compat.v1.GraphDef()
    result.CopyFrom(graph.graph_def)
    del result.node[:]
    for role, entry in entries.items():
        node = result.node.add(name=placeholder(role), op="Placeholder")
        node.attr["dtype"].type = entry.dtype
        node.attr["shape"].shape.unknown_rank = True
    for given in graph.graph_def.node:
        if given.name in replaced:
            continue
        node = result.node.add()
        node.CopyFrom(given)
        del node.input[:]
        for name in given.input:
            control, ref = name.startswith("^"), TensorRef.parse(name.lstrip("^"))
            if control and (ref.node in needs_strings or ref.node in replaced):
                continue
            node.input.append(f"{replaced[ref.node]}:0" if ref.node in replaced else name)
    reached = extract(result, [output.node])
    left = sorted({node.name for node in reached.node} & {ref.node for ref in strings})
    if left:
        raise CodecGraphError(
            f"expected the image to follow from the symbols of y and z, but it needs {left[0]!r} "
            "besides"
        )
    return reached


def _dependents(graph: Graph, sources: Iterable[str]) -> set[str]:
    """Every node that needs one of some nodes, by its inputs or by control inputs."""
    users: dict[str, list[str]] = defaultdict(list)
    for node in graph.graph_def.node:
        for name in node.input:
            users[TensorRef.parse(name.lstrip("^")).node].append(node.name)
    found, pending = set(sources), list(sources)
    while pending:
        for user in users[pending.pop()]:
            if user not in found:
                found.add(user)
                pending.append(user)
    return found
