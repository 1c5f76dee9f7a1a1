"""Where a codec's latents are: found from the range-encode ops, since tensor names are unknown.

Whatever a graph calls its tensors, what it range-encodes are the symbols of ``y_hat`` and
``z_hat``, and what it encodes ``y_hat`` with is the scale index. The ops are, in the two
generations of tensorflow-compression:

- 2.x: ``EntropyEncodeIndex(handle, index, value)`` for y and ``EntropyEncodeChannel(handle,
  value)`` for z, on whole batches, with ``value = symbols - cdf_offset``. The tables hang on the
  handle: ``CreateRangeEncoder(shape, cdf)``.
- 1.x: ``UnboundedIndexRangeEncode(data, index, cdf, cdf_size, offset)`` for both, one image at a
  time in a loop over the batch: between the batch of symbols and the op stand the ops that pass
  it into the loop and read one element.

Sources:
    tensorflow/compression 2.14, ``entropy_models/continuous_indexed.py`` and
    ``continuous_batched.py`` (``compress``); 1.3, ``layers/entropy_models.py``
    (``EntropyModel.compress``, ``EntropyBottleneck._quantize``,
    ``SymmetricConditional._quantize`` and ``build``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.graph import Graph, TensorRef

ENCODE_OPS = ("UnboundedIndexRangeEncode", "EntropyEncodeIndex", "EntropyEncodeChannel")

_PASS_OPS = frozenset(
    ["Identity", "StopGradient", "PreventGradient", "Snapshot", "EnsureShape", "CheckNumerics"]
)
"""Ops whose output is their first input."""

_LOOP_OPS = frozenset(["Enter", "Switch", "RefEnter", "RefSwitch"])
"""Ops that pass a tensor into a loop or a branch as it is."""

_VIEW_OPS = frozenset(["Squeeze", "ExpandDims", "Reshape", "Unpack"])
"""Ops that may pick one image from the batch or drop its axis; they change no value. StridedSlice
does where it drops the first axis; else it crops (``GridAlign`` of the published codecs)."""


@dataclass(frozen=True)
class TableRefs:
    """Where the range coder's tables of one encode op are; all are constants of the graph."""

    cdf: TensorRef
    """1.x: int32 (rows, length). 2.x: int32, rows one after the other, each led by -precision."""
    cdf_offset: TensorRef | None
    """Smallest symbol of each row, int32 (rows,); None means 0."""
    cdf_size: TensorRef | None = None
    """1.x: entries of each row that count, int32 (rows,)."""
    precision: int = 0
    """1.x: bits of a probability."""
    overflow_width: int = 0
    """1.x: bits of a digit of the code for symbols beyond the table."""


@dataclass(frozen=True)
class Encoder:
    """One range-encode op, traced back to what it encodes."""

    node: str
    op: str
    symbols: TensorRef
    """The integer symbols of a batch, (N, h, w, C)."""
    index: TensorRef | None
    """The row of the table for each symbol; None: the row is the channel."""
    tables: TableRefs


@dataclass(frozen=True)
class Structure:
    """The latents of a scale hyperprior, as tensors of a flat graph."""

    form: Literal["tfc1", "tfc2"]
    image: TensorRef
    y: Encoder
    z: Encoder

    @property
    def scale_index(self) -> TensorRef:
        """The scale index of each element of y, (N, h, w, C)."""
        if self.y.index is None:
            raise CodecGraphError(f"{self.y.node} has no index")
        return self.y.index


@dataclass(frozen=True)
class Shift:
    """A constant that is added to a latent before it is quantised."""

    ref: TensorRef
    sign: Literal[-1, 1]


@dataclass(frozen=True)
class Quantizer:
    """How symbols come from a latent: ``round(v + shifts)`` or ``floor(v + shifts)``."""

    op: str
    """Round, Rint or Floor."""
    shifts: tuple[Shift, ...]
    predicted: bool
    """The latent is shifted by something that depends on the image: it has a mean."""


def find_structure(graph: Graph, image: TensorRef) -> Structure:
    """Find the latents of a scale hyperprior.

    Args:
        graph: The flat sub-graph of the sender.
        image: Its input.

    Raises:
        CodecGraphError: The graph is not that of a scale hyperprior; the message says what it
            seems to be.
    """
    encoders = [_trace(graph, node) for node in graph.find(*ENCODE_OPS)]
    if not encoders:
        raise CodecGraphError(
            f"expected range-encode ops ({', '.join(ENCODE_OPS)}) on the way to the sender's "
            f"strings, found none: not a codec made with tensorflow-compression"
        )
    adaptive = [e for e in encoders if e.index is not None and _adaptive(graph, e.index, image)]
    fixed = [e for e in encoders if e not in adaptive]
    if not adaptive:
        raise CodecGraphError(
            f"no sigma_hat: the {len(encoders)} range-encode op(s) of this codec use fixed "
            f"probabilities (a factorized prior). LatentSet needs a scale hyperprior, as "
            f"bmshj2018-hyperprior-msssim-4"
        )
    if len(adaptive) != 1 or len(fixed) != 1:
        raise CodecGraphError(
            f"expected two range-encode ops, one for y with a scale index and one for z with "
            f"fixed probabilities; found {len(adaptive)} with an index and {len(fixed)} without. "
            f"LatentSet needs a scale hyperprior, as bmshj2018-hyperprior-msssim-4"
        )
    (y,), (z,) = adaptive, fixed
    structure = Structure(
        form="tfc1" if y.op == "UnboundedIndexRangeEncode" else "tfc2", image=image, y=y, z=z
    )
    quantizer = find_quantizer(graph, y.symbols, image)
    if quantizer is not None and quantizer.predicted:
        raise CodecGraphError(
            "y is coded as the difference to a predicted mean (a mean-scale hyperprior, as "
            "mbt2018-mean): its symbols are not y_hat. LatentSet needs a scale hyperprior, as "
            "bmshj2018-hyperprior-msssim-4"
        )
    return structure


def find_quantizer(graph: Graph, symbols: TensorRef, image: TensorRef) -> Quantizer | None:
    """Find how symbols come from a latent, for the offset that the latent is quantised with.

    The forms are ``round(v - offset)`` (2.x) and ``floor(v + (1/2 - offset))`` (1.x). Only what
    stands right before the rounding is taken, so that a bias that was added to the latent before
    is not taken for an offset.

    Args:
        graph: The flat sub-graph of the sender.
        symbols: Symbols, as in ``Encoder``.
        image: The sender's input.

    Returns:
        None where the symbols are not rounded in one of these forms.
    """
    ref = symbols
    while graph.op(ref) in _PASS_OPS | {"Cast", "Reshape"}:
        ref = graph.inputs(ref.node)[0]
    op = graph.op(ref)
    if op not in ("Round", "Rint", "Floor"):
        return None
    ref = _pass(graph, graph.inputs(ref.node)[0])
    shifts: list[Shift] = []
    if op == "Floor" and graph.op(ref) in ("Add", "AddV2"):
        a, b = graph.inputs(ref.node)
        if graph.depends_on_value(a, image.node):
            ref, shift = a, b
        else:
            ref, shift = b, a
        if graph.depends_on_value(shift, image.node):
            return Quantizer(op, (), predicted=True)
        shifts.append(Shift(shift, 1))
        ref = _pass(graph, ref)
    if graph.op(ref) == "Sub":
        a, b = graph.inputs(ref.node)
        if graph.depends_on_value(b, image.node):
            return Quantizer(op, tuple(shifts), predicted=graph.depends_on_value(a, image.node))
        shifts.append(Shift(b, -1))
    return Quantizer(op, tuple(shifts), predicted=False)


def _adaptive(graph: Graph, index: TensorRef, image: TensorRef) -> bool:
    return graph.depends_on_value(index, image.node)


def _trace(graph: Graph, node: Any) -> Encoder:
    inputs = graph.inputs(node.name)
    match node.op:
        case "UnboundedIndexRangeEncode":
            data, index, cdf, cdf_size, offset = (_outside(graph, i) for i in inputs)
            tables = TableRefs(
                cdf=cdf,
                cdf_offset=offset,
                cdf_size=cdf_size,
                precision=int(node.attr["precision"].i),
                overflow_width=int(node.attr["overflow_width"].i),
            )
            return Encoder(node.name, node.op, data, index, tables)
        case "EntropyEncodeIndex":
            handle, given, value = inputs
            symbols, offset_ref = _without_offset(graph, value)
            tables = TableRefs(_tables_of_handle(graph, handle), offset_ref)
            return Encoder(node.name, node.op, symbols, _outside(graph, given), tables)
        case _:
            handle, value = inputs
            symbols, offset_ref = _without_offset(graph, value)
            tables = TableRefs(_tables_of_handle(graph, handle), offset_ref)
            return Encoder(node.name, node.op, symbols, None, tables)


def _without_offset(graph: Graph, value: TensorRef) -> tuple[TensorRef, TensorRef | None]:
    """Undo ``symbols - cdf_offset``, where ``cdf_offset`` may be gathered by the index."""
    ref = _outside(graph, value)
    if graph.op(ref) != "Sub":
        return ref, None
    symbols, offset = graph.inputs(ref.node)
    offset = _pass(graph, offset)
    if graph.op(offset) in ("Gather", "GatherV2"):
        offset = graph.inputs(offset.node)[0]
    return _pass(graph, symbols), _pass(graph, offset)


def _tables_of_handle(graph: Graph, handle: TensorRef) -> TensorRef:
    ref = _pass(graph, handle)
    while graph.op(ref) in ("EntropyEncodeIndex", "EntropyEncodeChannel"):
        ref = _pass(graph, graph.inputs(ref.node)[0])
    if graph.op(ref) != "CreateRangeEncoder":
        raise CodecGraphError(
            f"expected the handle of a range-encode op to come from CreateRangeEncoder, it comes "
            f"from {graph.op(ref)} {ref.node!r}"
        )
    return _pass(graph, graph.inputs(ref.node)[1])


def _pass(graph: Graph, ref: TensorRef) -> TensorRef:
    while graph.op(ref) in _PASS_OPS:
        ref = graph.inputs(ref.node)[0]
    return ref


def _outside(graph: Graph, ref: TensorRef) -> TensorRef:
    """Follow a tensor out of the loop over the batch to the tensor that the loop runs over."""
    steps = _steps_outside(graph, ref)
    for ref in steps:  # noqa: B007 - the last one is what is wanted
        pass
    return ref


def _steps_outside(graph: Graph, ref: TensorRef) -> Iterator[TensorRef]:
    while True:
        yield ref
        op, inputs = graph.op(ref), graph.inputs(ref.node)
        if op in _PASS_OPS or op in _LOOP_OPS or op in _VIEW_OPS or _picks_image(graph, ref):
            ref = inputs[0]
        elif op == "Merge":
            # A loop's variable: what it starts with. The tensors looked for never change in it.
            ref = next(i for i in inputs if graph.op(i) != "NextIteration")
        elif op == "TensorArrayReadV3":
            ref = _written(graph, inputs[2], {"TensorArrayScatterV3": 2, "TensorArraySplitV3": 1})
        elif op == "TensorListGetItem":
            ref = _written(graph, inputs[0], {"TensorListFromTensor": 0})
        else:
            return


def _picks_image(graph: Graph, ref: TensorRef) -> bool:
    node = graph.node(ref.node)
    return node.op == "StridedSlice" and bool(node.attr["shrink_axis_mask"].i & 1)


def _written(graph: Graph, handle: TensorRef, writers: dict[str, int]) -> TensorRef:
    """Return the tensor that filled a TensorArray or TensorList whose element is read."""
    while (op := graph.op(handle)) not in writers:
        inputs = graph.inputs(handle.node)
        if op in _PASS_OPS or op in _LOOP_OPS:
            handle = inputs[0]
        elif op == "Merge":
            handle = next(i for i in inputs if graph.op(i) != "NextIteration")
        else:
            raise CodecGraphError(
                f"expected the loop over the batch to read what {' or '.join(writers)} wrote, it "
                f"reads from {op} {handle.node!r}"
            )
    return graph.inputs(handle.node)[writers[op]]
