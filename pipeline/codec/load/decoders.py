"""Range-decode ops of a graph: which symbols they yield, and a graph without them.

Coding is lossless, so another tensor can replace decoded symbols: a placeholder in the receiver,
and the encoded symbols in a sender that decodes z again. See ``structure`` for the ops.

Sources:
    tensorflow/compression 2.14, ``entropy_models/continuous_indexed.py`` and
    ``continuous_batched.py`` (``decompress``); 1.3, ``layers/entropy_models.py``
    (``EntropyModel.decompress``).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.graph import (
    SHAPE_OPS,
    Graph,
    TensorRef,
    extract,
    substitute,
    without_control_inputs,
)
from latentset.pipeline.codec.load.graph_structure import ENCODE_OPS, Structure, pair_y_with_z
from latentset.pipeline.tensorflow_setup import tf

_SYMBOLS_OUTPUT = {
    "UnboundedIndexRangeDecode": 0,
    "EntropyDecodeIndex": 1,
    "EntropyDecodeChannel": 1,
}
"""Range-decode ops, and which of their outputs has the symbols."""

_PASS_OPS = frozenset(
    """
    CheckNumerics EnsureShape Enter Exit ExpandDims Identity Merge NextIteration Pack
    PreventGradient Reshape Snapshot Squeeze StopGradient Switch TensorArrayWriteV3
    TensorListSetItem
    """.split()  # noqa: SIM905 - a list of quoted names is harder to read
)
"""Ops between a range-decode op and the symbols of the batch; they change no value. The elements
of a TensorArray are written along its flow, which is followed like a value."""

_RESHAPE_OPS = frozenset(["EnsureShape", "Identity", "Reshape"])
_BATCH_OPS = frozenset(["TensorArrayGatherV3", "TensorListStack"])
"""Ops that put the images of a loop together."""
_ROUND_OPS = frozenset(["Floor", "Rint", "Round"])
_H_S_OPS = SHAPE_OPS | _ROUND_OPS | {"Conv2D", "Conv2DBackpropInput", "Pad", "PadV2", "MirrorPad"}
"""Ops that may take the symbols of z, with or without their offset, on the way into h_s."""

Role = Literal["y_hat", "z_hat"]
PLACEHOLDERS: Mapping[Role, TensorRef] = {
    role: TensorRef(f"latentset_{role}", 0) for role in get_args(Role)
}
"""Of symbols, in a receiver without its range decoder."""


class Decoder(NamedTuple):
    """One range-decode op."""

    node: str
    op: str
    symbols: TensorRef
    """int32 (N, h, w, C), as the encoder took them."""
    row: TensorRef | None
    """The index of the symbols; None: the row of the table is the channel."""


class DecodedZ(NamedTuple):
    """z, decoded within the sender, and the constant that is added to its symbols."""

    decoder: Decoder
    offset: TensorRef | None


def replace_decoded_z(graph: Graph, structure: Structure) -> tuple[Graph, DecodedZ | None]:
    """Replace what the sender decodes by the symbols of z that it encoded."""
    decoders = _find_decoders(graph)
    if not decoders:
        return graph, None
    for decoder in decoders:
        strings = graph.inputs(decoder.node)[0]
        sources = graph.find_upstream(strings, stop=lambda node: node.op in ENCODE_OPS)
        if [node.name for node in sources] != [structure.z.node]:
            names = ", ".join(repr(node.name) for node in sources) or "no string that it made"
            raise CodecGraphError(
                f"expected the sender to decode the string of z only, {decoder.op} "
                f"{decoder.node!r} decodes {names}"
            )
    if len(decoders) != 1:
        raise CodecGraphError(f"expected the sender to decode z once, got {len(decoders)} times")
    (decoder,) = decoders
    offset = _find_offset(graph, decoder, structure.image)
    replaced = substitute(graph.graph_def, {decoder.symbols: structure.z.symbols})
    return Graph(replaced), DecodedZ(decoder, offset)


def find_receiver_decoders(graph: Graph) -> dict[Role, Decoder]:
    """Find the decoders of y and of z in a receiver: that of y has an index that follows from z."""
    decoders = _find_decoders(graph)
    adaptive = [
        d
        for d in decoders
        if d.row and any(graph.depends_on_value(d.row, o.node) for o in decoders if o is not d)
    ]
    y, z = pair_y_with_z(decoders, adaptive, "range-decode")
    return {"y_hat": y, "z_hat": z}


def cut_receiver(
    graph: Graph, decoders: Mapping[Role, Decoder], output: TensorRef, strings: Iterable[TensorRef]
) -> Any:
    """Extract what an image needs, with placeholders, int32 (N, h, w, C), for decoded symbols.

    Control inputs that need strings are dropped: they check the range decoder.
    """
    placeholders = {decoder.symbols: PLACEHOLDERS[role] for role, decoder in decoders.items()}
    needs_strings = graph.find_downstream([ref.node for ref in strings])
    result = without_control_inputs(
        substitute(graph.graph_def, placeholders), needs_strings.__contains__
    )
    for ref in placeholders.values():
        node = result.node.add(name=ref.node, op="Placeholder")
        node.attr["dtype"].type = tf.int32.as_datatype_enum
        node.attr["shape"].shape.unknown_rank = True
    reached = extract(result, [output.node])
    left = sorted({node.name for node in reached.node} & {ref.node for ref in strings})
    if left:
        raise CodecGraphError(
            f"expected the image to follow from the symbols of y and z, it also needs {left[0]!r}"
        )
    return reached


def _find_decoders(graph: Graph) -> list[Decoder]:
    decoders = []
    for node in graph.find(*_SYMBOLS_OUTPUT):
        row = None if node.op == "EntropyDecodeChannel" else graph.inputs(node.name)[1]
        decoders.append(Decoder(node.name, node.op, _symbols_of(graph, node), row))
    return decoders


def _symbols_of(graph: Graph, node: Any) -> TensorRef:
    """Follow decoded symbols out of the loop (1), or over ``+ cdf_offset`` (2)."""
    start = TensorRef(node.name, _SYMBOLS_OUTPUT[node.op])
    in_loop = node.op == "UnboundedIndexRangeDecode"
    ends = _BATCH_OPS if in_loop else {"Add", "AddV2"}
    takers = [taker for _, taker in _walk(graph, start, _PASS_OPS)]
    found = {TensorRef(taker.name, 0) for taker in takers if taker.op in ends}
    if not in_loop:
        found = found or {start}
    if len(found) != 1:
        raise CodecGraphError(
            f"expected one tensor of symbols from {node.op} {node.name!r}, found {len(found)}"
        )
    ref = found.pop()
    # What follows may reshape the symbols by the shape of the bitstreams.
    while [taker.op in _RESHAPE_OPS for taker in graph.consumers.get(ref, ())] == [True]:
        ref = TensorRef(graph.consumers[ref][0].name, 0)
    return ref


def _find_offset(graph: Graph, decoder: Decoder, image: TensorRef) -> TensorRef | None:
    """Find the one constant that is added to decoded symbols before h_s."""
    found: list[TensorRef] = []
    pending = [(decoder.symbols, _PASS_OPS | {"Cast"})]
    while pending:
        start, through = pending.pop()
        for ref, node in _walk(graph, start, through):
            if node.op in through or node.op in _H_S_OPS:
                continue
            others = [other for other in graph.inputs(node.name) if other != ref]
            constant = len(others) == 1 and not graph.depends_on_value(others[0], image.node)
            if node.op not in ("Add", "AddV2") or not constant or found:
                raise CodecGraphError(
                    f"expected one constant to be added to the decoded symbols of z before h_s "
                    f"takes them, found {node.op} {node.name!r}"
                )
            found.append(others[0])
            # A float offset is rounded before the next op.
            pending.append((TensorRef(node.name, 0), _PASS_OPS | _ROUND_OPS | {"Cast"}))
    return found[0] if found else None


def _walk(
    graph: Graph, start: TensorRef, through: frozenset[str]
) -> Iterator[tuple[TensorRef, Any]]:
    """Yield each tensor reached from a tensor through some ops, with a node that takes it."""
    pending, seen = [start], {start}
    while pending:
        ref = pending.pop()
        for node in graph.consumers.get(ref, ()):
            yield ref, node
            if node.op in through:
                outputs = {TensorRef(node.name, k) for k in range(2 if node.op == "Switch" else 1)}
                pending += outputs - seen
                seen |= outputs
