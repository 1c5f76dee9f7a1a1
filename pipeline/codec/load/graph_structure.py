"""Which tensors of a sender are its latents: found from its range-encode ops, not by name.

It range-encodes the symbols of ``y_hat`` and ``z_hat``, and ``y_hat`` by the scale index. The ops
are, in the two generations of tensorflow-compression:

- 2.x: ``EntropyEncodeIndex(handle, index, value)`` for y and ``EntropyEncodeChannel(handle,
  value)`` for z, on whole batches, with ``value = symbols - cdf_offset``. The tables hang on the
  handle: ``CreateRangeEncoder(shape, cdf)``.
- 1.x: ``UnboundedIndexRangeEncode(data, index, cdf, cdf_size, offset)`` for both, one image at a
  time in a loop over the batch: between the batch of symbols and the op are the ops that pass it
  into the loop and read one element.

Sources:
    tensorflow/compression 2.14, ``entropy_models/continuous_indexed.py`` and
    ``continuous_batched.py`` (``compress``); 1.3, ``layers/entropy_models.py``
    (``EntropyModel.compress``, ``EntropyBottleneck._quantize``,
    ``SymmetricConditional._quantize`` and ``build``).
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.graph import Graph, TensorRef

Coder = TypeVar("Coder")
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

_NEEDED = "LatentSet needs a scale hyperprior, as bmshj2018-hyperprior-msssim-4"


@dataclass(frozen=True)
class Quantizer:
    """How symbols follow from a latent v: ``round(v - subtracted)`` or ``floor(v + added)``."""

    op: str
    """Round, Rint or Floor."""
    added: TensorRef | None
    subtracted: TensorRef | None
    predicted: bool
    """A value is added or subtracted that depends on the image: the latent has a mean."""

    @property
    def shifts(self) -> list[TensorRef]:
        """The constants that are added or subtracted."""
        return [ref for ref in (self.added, self.subtracted) if ref is not None]


@dataclass(frozen=True)
class Encoder:
    """One range-encode op, traced back to what it encodes and to its table, which is constant."""

    node: str
    op: str
    symbols: TensorRef
    """Integers (N, h, w, C)."""
    index: TensorRef | None
    """The row of the table for each symbol; None: the row is the channel."""
    quantizer: Quantizer | None
    """None: not rounded in a known form."""
    cdf: TensorRef
    cdf_offset: TensorRef | None
    cdf_size: TensorRef | None = None
    precision: int = 0
    overflow_width: int = 0

    @property
    def constants(self) -> list[TensorRef]:
        """The tensors of the table, and what the latent is shifted by before it is rounded."""
        table = [r for r in (self.cdf, self.cdf_offset, self.cdf_size) if r is not None]
        return table + (self.quantizer.shifts if self.quantizer else [])


@dataclass(frozen=True)
class Structure:
    """The latents of a scale hyperprior, as tensors of a flat graph."""

    image: TensorRef
    y: Encoder
    z: Encoder
    scale_index: TensorRef

    @property
    def form(self) -> Literal["tfc1", "tfc2"]:
        """The generation of tensorflow-compression."""
        return "tfc1" if self.y.op == "UnboundedIndexRangeEncode" else "tfc2"


def find_structure(graph: Graph, image: TensorRef) -> Structure:
    """Find the latents in a sender's flat graph; CodecGraphError if it is no scale hyperprior."""
    encoders = [_trace(graph, node, image) for node in graph.find(*ENCODE_OPS)]
    adaptive = [e for e in encoders if e.index and graph.depends_on_value(e.index, image.node)]
    if not encoders:
        raise CodecGraphError(
            f"expected range-encode ops ({', '.join(ENCODE_OPS)}) in the sender, found none: not a "
            f"codec made with tensorflow-compression"
        )
    if not adaptive:
        raise CodecGraphError(
            f"no sigma_hat: all probabilities are fixed (a factorized prior). {_NEEDED}"
        )
    y, z = pair_y_with_z(encoders, adaptive, "range-encode", f". {_NEEDED}")
    if y.quantizer is not None and y.quantizer.predicted:
        raise CodecGraphError(
            f"y is coded as the difference to a predicted mean (as in mbt2018-mean). {_NEEDED}"
        )
    assert y.index is not None
    return Structure(image, y, z, y.index)


def pair_y_with_z(
    coders: list[Coder], adaptive: list[Coder], kind: str, hint: str = ""
) -> tuple[Coder, Coder]:
    """Return the ops of y and of z: that of y has an index that follows from other values."""
    fixed = [coder for coder in coders if coder not in adaptive]
    if len(adaptive) != 1 or len(fixed) != 1:
        raise CodecGraphError(
            f"expected one {kind} op with a scale index (y) and one without (z); found "
            f"{len(adaptive)} with an index and {len(fixed)} without{hint}"
        )
    return adaptive[0], fixed[0]


def find_quantizer(graph: Graph, symbols: TensorRef, image: TensorRef) -> Quantizer | None:
    """Find ``round(v - offset)`` (2.x) or ``floor(v + (1/2 - offset))`` (1.x) of a latent v.

    Only the op right before the rounding is taken: a bias added to the latent earlier is no offset.
    """
    ref = graph.skip(symbols, _PASS_OPS | {"Cast", "Reshape"})
    op = graph.op(ref)
    if op not in ("Round", "Rint", "Floor"):
        return None
    ref = graph.skip(graph.inputs(ref.node)[0], _PASS_OPS)
    added = subtracted = None
    if op == "Floor" and graph.op(ref) in ("Add", "AddV2"):
        ref, added = graph.inputs(ref.node)
        if not graph.depends_on_value(ref, image.node):
            ref, added = added, ref
        if graph.depends_on_value(added, image.node):
            return Quantizer(op, None, None, predicted=True)
        ref = graph.skip(ref, _PASS_OPS)
    if graph.op(ref) == "Sub":
        latent, subtracted = graph.inputs(ref.node)
        if graph.depends_on_value(subtracted, image.node):
            predicted = graph.depends_on_value(latent, image.node)
            return Quantizer(op, added, None, predicted)
    return Quantizer(op, added, subtracted, predicted=False)


def _trace(graph: Graph, node: Any, image: TensorRef) -> Encoder:
    inputs = graph.inputs(node.name)
    if node.op == "UnboundedIndexRangeEncode":
        symbols, row, cdf, size, offset = (_leave_loop(graph, i) for i in inputs)
        quantizer = find_quantizer(graph, symbols, image)
        digits = (int(node.attr[key].i) for key in ("precision", "overflow_width"))
        return Encoder(node.name, node.op, symbols, row, quantizer, cdf, offset, size, *digits)
    index = _leave_loop(graph, inputs[1]) if node.op == "EntropyEncodeIndex" else None
    symbols, cdf_offset = _without_offset(graph, inputs[-1])
    quantizer, cdf = find_quantizer(graph, symbols, image), _table_of_handle(graph, inputs[0])
    return Encoder(node.name, node.op, symbols, index, quantizer, cdf, cdf_offset)


def _without_offset(graph: Graph, value: TensorRef) -> tuple[TensorRef, TensorRef | None]:
    """Undo ``symbols - cdf_offset``, where ``cdf_offset`` may be gathered by the index."""
    ref = _leave_loop(graph, value)
    if graph.op(ref) != "Sub":
        return ref, None
    symbols, offset = (graph.skip(i, _PASS_OPS) for i in graph.inputs(ref.node))
    if graph.op(offset) in ("Gather", "GatherV2"):
        offset = graph.skip(graph.inputs(offset.node)[0], _PASS_OPS)
    return symbols, offset


def _table_of_handle(graph: Graph, handle: TensorRef) -> TensorRef:
    ref = graph.skip(handle, _PASS_OPS | {"EntropyEncodeIndex", "EntropyEncodeChannel"})
    if graph.op(ref) != "CreateRangeEncoder":
        raise CodecGraphError(f"expected CreateRangeEncoder, got {graph.op(ref)} {ref.node!r}")
    return graph.skip(graph.inputs(ref.node)[1], _PASS_OPS)


def _leave_loop(graph: Graph, ref: TensorRef) -> TensorRef:
    """Follow a tensor back to the tensor that the loop over the batch runs over."""
    while True:
        inputs = graph.inputs(ref.node)
        if before := _step_back(graph, ref):
            ref = before
        elif graph.op(ref) == "TensorArrayReadV3":
            ref = _written(graph, inputs[2], {"TensorArrayScatterV3": 2, "TensorArraySplitV3": 1})
        elif graph.op(ref) == "TensorListGetItem":
            ref = _written(graph, inputs[0], {"TensorListFromTensor": 0})
        else:
            return ref


def _step_back(graph: Graph, ref: TensorRef) -> TensorRef | None:
    """Return what a tensor is passed on from, into the loop or within it."""
    node, inputs = graph.node(ref.node), graph.inputs(ref.node)
    if node.op == "Merge":
        # What a loop's variable starts with. The tensors looked for never change in the loop.
        return next(i for i in inputs if graph.op(i) != "NextIteration")
    picks_image = node.op == "StridedSlice" and node.attr["shrink_axis_mask"].i & 1
    return inputs[0] if node.op in _PASS_OPS | _LOOP_OPS | _VIEW_OPS or picks_image else None


def _written(graph: Graph, handle: TensorRef, writers: dict[str, int]) -> TensorRef:
    """Return the tensor that filled a TensorArray or TensorList whose element is read."""
    while (op := graph.op(handle)) not in writers:
        before = _step_back(graph, handle)
        if before is None:
            expected = " or ".join(writers)
            raise CodecGraphError(f"expected a loop over {expected}, got {op} {handle.node!r}")
        handle = before
    return graph.inputs(handle.node)[writers[op]]
