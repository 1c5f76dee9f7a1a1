"""Range-decode ops of a graph: which symbols they yield, and a graph without them.

Whatever a graph calls its tensors, what its range decoder yields are the symbols of ``y_hat`` and
``z_hat``. The ops are ``EntropyDecodeIndex`` and ``EntropyDecodeChannel`` (tensorflow-compression
2) and ``UnboundedIndexRangeDecode`` (1), the latter in a loop over the batch. Coding is lossless,
so another tensor can take the place of decoded symbols: a placeholder in the receiver, and the
symbols that were encoded in a sender that decodes z again.

Sources:
    tensorflow/compression 2.14, ``entropy_models/continuous_indexed.py`` and
    ``continuous_batched.py`` (``decompress``); 1.3, ``layers/entropy_models.py``
    (``EntropyModel.decompress``).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.graph import SHAPE_OPS, Graph, TensorRef, extract
from latentset.pipeline.codec.load.structure import ENCODE_OPS, Structure
from latentset.pipeline.tensorflow_setup import tf

DECODE_OPS: Mapping[str, int] = {
    "UnboundedIndexRangeDecode": 0,
    "EntropyDecodeIndex": 1,
    "EntropyDecodeChannel": 1,
}
"""Range-decode ops, and which of their outputs has the symbols."""

_STRINGS_INPUT = 0
_INDEX_INPUT = {"UnboundedIndexRangeDecode": 1, "EntropyDecodeIndex": 1}

_PASS_OPS = frozenset(
    """
    CheckNumerics EnsureShape Enter Exit ExpandDims Identity Merge NextIteration Pack
    PreventGradient Reshape Snapshot Squeeze StopGradient Switch TensorArrayWriteV3
    TensorListSetItem
    """.split()  # noqa: SIM905 - a list of quoted names is harder to read
)
"""Ops between a range-decode op and the symbols of the batch; they change no value."""

_RESHAPE_OPS = frozenset(["EnsureShape", "Identity", "Reshape"])
"""Ops that symbols of a batch may go through before they are used."""

_BATCH_OPS = frozenset(["TensorArrayGatherV3", "TensorListStack"])
"""Ops that put the images of a loop together."""

Role = Literal["y_hat", "z_hat"]


@dataclass(frozen=True)
class Decoder:
    """One range-decode op."""

    node: str
    op: str
    symbols: TensorRef
    """The integer symbols of a batch, (N, h, w, C), as the encoder took them."""


def find_decoders(graph: Graph) -> list[Decoder]:
    """Find all range-decode ops and the symbols that they yield.

    Raises:
        CodecGraphError: What one yields leaves its loop nowhere, or at several locations.
    """
    nodes = list(graph.find(*DECODE_OPS))
    consumers = _consumers(graph) if nodes else {}
    return [Decoder(n.name, n.op, _symbols_of(graph, consumers, n)) for n in nodes]


def find_receiver_roles(graph: Graph) -> dict[Role, Decoder]:
    """Find the decoders of y and of z in a receiver: that of y has an index that z decides.

    Raises:
        CodecGraphError: There are not two range-decode ops of these kinds.
    """
    decoders = find_decoders(graph)
    adaptive = [decoder for decoder in decoders if _is_adaptive(graph, decoder, decoders)]
    fixed = [decoder for decoder in decoders if decoder not in adaptive]
    if len(adaptive) != 1 or len(fixed) != 1:
        raise CodecGraphError(
            "expected two range-decode ops in the receiver, one for y with a scale index and one "
            f"for z with fixed probabilities; found {len(adaptive)} with an index and {len(fixed)} "
            "without"
        )
    return {"y_hat": adaptive[0], "z_hat": fixed[0]}


@dataclass(frozen=True)
class DecodedZ:
    """z, decoded within the sender."""

    decoder: Decoder
    offset: TensorRef | None
    """What is added to the decoded symbols; None: nothing."""


def skip_coding(graph: Graph, structure: Structure) -> tuple[Graph, DecodedZ | None]:
    """Put the symbols of z in the place of what the sender decodes again.

    Returns:
        The graph without decoded symbols, and what was decoded; the same graph and None where the
        sender decodes nothing.

    Raises:
        CodecGraphError: It decodes anything else than the string of z.
    """
    decoders = find_decoders(graph)
    if not decoders:
        return graph, None
    for decoder in decoders:
        strings = graph.inputs(decoder.node)[_STRINGS_INPUT]
        sources = graph.find_upstream(strings, stop=lambda node: node.op in ENCODE_OPS)
        if [node.name for node in sources] != [structure.z.node]:
            names = ", ".join(repr(node.name) for node in sources) or "no string that it made"
            raise CodecGraphError(
                f"expected the sender to decode the string of z ({structure.z.node!r}) and no "
                f"other, {decoder.op} {decoder.node!r} decodes {names}"
            )
    if len(decoders) != 1:
        raise CodecGraphError(f"expected the sender to decode z once, got {len(decoders)} times")
    (decoder,) = decoders
    offset = _find_offset(graph, decoder, structure.image)
    skipped = substitute(graph.graph_def, {decoder.symbols: structure.z.symbols})
    return Graph(skipped), DecodedZ(decoder, offset)


def substitute(graph_def: Any, replaced: Mapping[TensorRef, TensorRef]) -> Any:
    """Return a graph in which every input that is a key is the value instead."""
    result = tf.compat.v1.GraphDef()
    result.CopyFrom(graph_def)
    for node in result.node:
        for k, name in enumerate(node.input):
            if not name.startswith("^"):
                ref = TensorRef.parse(name)
                if ref in replaced:
                    node.input[k] = str(replaced[ref])
    return result


def placeholder(role: Role) -> str:
    """Name the placeholder of the symbols of y or z in a receiver without its range decoder."""
    return f"latentset_{role}"


def cut_receiver(
    graph: Graph,
    decoders: Mapping[Role, Decoder],
    output: TensorRef,
    strings: Iterable[TensorRef],
) -> Any:
    """Put placeholders in the place of decoded symbols, int32 (N, h, w, C).

    Control inputs that need strings are left out: they check the range decoder.

    Args:
        graph: The flat sub-graph of the receiver.
        decoders: As from ``find_receiver_roles``.
        output: The image.
        strings: Inputs of the receiver that are strings.

    Returns:
        The ``GraphDef`` of what the image needs.

    Raises:
        CodecGraphError: It needs strings besides.
    """
    result = substitute(
        graph.graph_def,
        {decoder.symbols: TensorRef(placeholder(role), 0) for role, decoder in decoders.items()},
    )
    needs_strings = graph.find_downstream([ref.node for ref in strings])
    for node in result.node:
        kept = [
            name
            for name in node.input
            if not name.startswith("^") or TensorRef.parse(name[1:]).node not in needs_strings
        ]
        del node.input[:]
        node.input.extend(kept)
    for role in decoders:
        node = result.node.add(name=placeholder(role), op="Placeholder")
        node.attr["dtype"].type = tf.int32.as_datatype_enum
        node.attr["shape"].shape.unknown_rank = True
    reached = extract(result, [output.node])
    left = sorted({node.name for node in reached.node} & {ref.node for ref in strings})
    if left:
        raise CodecGraphError(
            f"expected the image to follow from the symbols of y and z, but it needs {left[0]!r} "
            "besides"
        )
    return reached


_OFFSET_IS_OVER = SHAPE_OPS | frozenset(
    "Conv2D Conv2DBackpropInput Floor Pad PadV2 MirrorPad Rint Round".split()  # noqa: SIM905
)
"""Ops that may take the symbols of z, or them with their offset, on the way into h_s."""


def _find_offset(graph: Graph, decoder: Decoder, image: TensorRef) -> TensorRef | None:
    """Find the constant that is added to decoded symbols before h_s; None: there is none.

    Raises:
        CodecGraphError: There are several, or something else is done to the symbols.
    """
    consumers = _consumers(graph)
    found: list[TensorRef] = []
    pending = [(decoder.symbols, _PASS_OPS | {"Cast"})]
    while pending:
        start, through = pending.pop()
        for ref, node in _walk(consumers, start, through):
            if node.op in through or node.op in _OFFSET_IS_OVER:
                continue
            others = [other for other in graph.inputs(node.name) if other != ref]
            constant = len(others) == 1 and not graph.depends_on_value(others[0], image.node)
            if node.op not in ("Add", "AddV2") or not constant or found:
                raise CodecGraphError(
                    f"expected one constant to be added to the decoded symbols of z before h_s "
                    f"takes them, found {node.op} {node.name!r}"
                )
            found.append(others[0])
            # A float offset is rounded before it goes on.
            pending.append(
                (TensorRef(node.name, 0), _PASS_OPS | {"Cast", "Floor", "Rint", "Round"})
            )
    return found[0] if found else None


def _consumers(graph: Graph) -> dict[TensorRef, list[Any]]:
    """By tensor, the nodes that take it."""
    consumers: dict[TensorRef, list[Any]] = defaultdict(list)
    for node in graph.graph_def.node:
        for ref in graph.inputs(node.name):
            consumers[ref].append(node)
    return consumers


def _walk(
    consumers: Mapping[TensorRef, list[Any]], start: TensorRef, through: frozenset[str]
) -> Iterator[tuple[TensorRef, Any]]:
    """Yield each tensor reached from a tensor through some ops, with a node that takes it."""
    pending, seen = [start], {start}
    while pending:
        ref = pending.pop()
        for node in consumers.get(ref, ()):
            yield ref, node
            if node.op in through:
                outputs = {TensorRef(node.name, k) for k in range(2 if node.op == "Switch" else 1)}
                pending += outputs - seen
                seen |= outputs


def _symbols_of(graph: Graph, consumers: Mapping[TensorRef, list[Any]], node: Any) -> TensorRef:
    """Follow decoded symbols out of the loop (1), or over ``+ cdf_offset`` (2)."""
    start = TensorRef(node.name, DECODE_OPS[node.op])
    ends = _BATCH_OPS if node.op == "UnboundedIndexRangeDecode" else {"Add", "AddV2"}
    found = {
        TensorRef(taker.name, 0)
        for _, taker in _walk(consumers, start, _PASS_OPS)
        if taker.op in ends
    }
    if node.op != "UnboundedIndexRangeDecode":
        found = found or {start}
    # A TensorArray's elements are written along its flow, which is followed like a value.
    if len(found) != 1:
        raise CodecGraphError(
            f"expected the symbols of {node.op} {node.name!r} to be put together once "
            f"({', '.join(sorted(ends))}), found {len(found)} locations"
        )
    ref = found.pop()
    # What follows may reshape the symbols by the shape of the strings.
    seen = {ref}
    while [taker.op in _RESHAPE_OPS for taker in consumers.get(ref, ())] == [True]:
        ref = TensorRef(consumers[ref][0].name, 0)
        if ref in seen:
            raise CodecGraphError(f"the symbols of {node.op} {node.name!r} go round in a circle")
        seen.add(ref)
    return ref


def _is_adaptive(graph: Graph, decoder: Decoder, decoders: list[Decoder]) -> bool:
    """Whether what it decodes with depends on what was decoded before."""
    position = _INDEX_INPUT.get(decoder.op)
    if position is None:
        return False
    index = graph.inputs(decoder.node)[position]
    others = [other.node for other in decoders if other is not decoder]
    return any(graph.depends_on_value(index, other) for other in others)
