"""Checked parts of a codec's graph, imported and ready to run, and the latents that they yield."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.allowed_ops import RANGE_CODER_OPS
from latentset.pipeline.codec.load.graph import (
    Graph,
    TensorRef,
    all_nodes,
    extract,
    without_control_inputs,
)
from latentset.pipeline.codec.load.memory import limited_memory
from latentset.pipeline.codec.load.metagraph import CodecFile, Signature
from latentset.pipeline.tensorflow_setup import tf

LATENT_TENSORS = ("y_hat", "scale_index", "z_hat")
"""The tensors that a caller may name, in the order in which they are computed."""

MAX_SYMBOL = 1 << 24
"""What float32 holds exactly. tfc's range encoder does not end for the largest integers, to which
TensorFlow casts what is no number."""

_NOT_A_REASON = ("Graph execution error", "Detected at node", "Node:", "[[")
"""What lines of TensorFlow's messages begin with that give no reason."""


@dataclass(frozen=True)
class Latents:
    """The latents of N images of one size: (N, h, w, C), z_hat (N, hz, wz, Cz)."""

    y_hat: NDArray[np.int32]
    scale_index: NDArray[np.int32]
    """Locations in the codec's scale table."""
    z_hat: NDArray[np.int32]
    """Symbols: the value is the symbol plus the channel's offset."""

    @classmethod
    def from_arrays(cls, arrays: Sequence[NDArray[Any]]) -> "Latents":
        """Convert what a graph computed for ``LATENT_TENSORS``; CodecGraphError for no integers."""
        return cls(*map(_as_integers, LATENT_TENSORS, arrays))

    @classmethod
    def join(cls, parts: Sequence["Latents"]) -> "Latents":
        """Join the latents of batches of one size."""
        return cls(*(np.concatenate([getattr(p, key) for p in parts]) for key in LATENT_TENSORS))


_MAX_TENSOR_BYTES = 1 << 31
"""Of a tensor whose shape the graph fixes; activations of an image have no fixed shape."""


class Program:
    """A graph, cut to what is needed and checked (``allowed_ops``), in a session of its own.

    ``inputs`` and ``outputs`` name tensors. ``image`` is the one among the inputs that is replaced
    by a placeholder for images of any size and number, uint8 (N, H, W, 3). With ``producer_ops``,
    the metagraph's ``stripped_op_list``, newer ops can be read.
    """

    def __init__(
        self,
        graph_def: Any,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        threads: int = 1,
        image: str | None = None,
        producer_ops: Any = None,
    ) -> None:
        if any(node.op in RANGE_CODER_OPS for node in graph_def.node):
            from latentset.pipeline.tensorflow_setup import tfc  # noqa: F401 - registers its ops
        with tf.Graph().as_default() as graph:
            replaced = {}
            if image is not None:
                shape = (None, None, None, 3)
                placeholder = tf.compat.v1.placeholder(tf.uint8, shape, name="latentset_image")
                # What waits for the image without taking it waits for this one.
                replaced = {image: placeholder, "^" + image.partition(":")[0]: placeholder}
            try:
                tf.import_graph_def(graph_def, replaced, name="", producer_op_list=producer_ops)
                self._inputs = [
                    replaced[name] if name in replaced else graph.get_tensor_by_name(name)
                    for name in inputs
                ]
                self._outputs = [graph.get_tensor_by_name(name) for name in outputs]
            except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
                raise CodecGraphError(f"TensorFlow cannot import the graph: {error}") from error
        _check_fixed_shapes(graph)
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=threads,
            inter_op_parallelism_threads=1,
            use_per_session_threads=True,
            allow_soft_placement=True,
        )
        # It would turn a division by a root into a product with Rsqrt (see ``divide_exactly``).
        rewrites = config.graph_options.rewrite_options
        rewrites.arithmetic_optimization = rewrites.OFF
        self._graph, self._config = graph, config
        self._session = tf.compat.v1.Session(graph=graph, config=config)

    def restart(self) -> None:
        """Start a new session, which forgets the sizes that it has seen.

        oneDNN keeps the weights in the order that suits the first image. Later ones whose size
        wants another order have them reordered each time (1 to 3 % of the time at 256x256).
        """
        self._session.close()
        self._session = tf.compat.v1.Session(graph=self._graph, config=self._config)

    def run(self, *values: Any) -> list[NDArray[Any]]:
        """Compute the outputs from one value an input; CodecGraphError or MemoryError.

        A loop may have no end, a tensor any size: the limits are a minute, and a second for each
        10 kB of input; 4 GiB of memory, and a kilobyte for each byte of input.
        """
        feeds = dict(zip(self._inputs, values, strict=True))
        given = sum(np.asarray(value).nbytes for value in values)
        limit_ms, limit_bytes = 60_000 + given // 10, (4 << 30) + 1000 * given
        options = tf.compat.v1.RunOptions(timeout_in_ms=limit_ms)
        try:
            with limited_memory(limit_bytes):
                return [np.asarray(v) for v in self._session.run(self._outputs, feeds, options)]
        except tf.errors.DeadlineExceededError:
            failure: Exception = CodecGraphError(
                f"the codec's graph took over {limit_ms // 1000} s"
            )
        except tf.errors.ResourceExhaustedError as error:
            failure = MemoryError(f"TensorFlow: {_reason(error)}")
        except (tf.errors.OpError, ValueError, TypeError) as error:
            failure = CodecGraphError(f"the codec's graph failed: {_reason(error)}")
        raise failure  # here: TensorFlow's error holds the graph, which a worker cannot send


def import_signature(file: CodecFile, signature: Signature, threads: int) -> Program:
    """Import a function of a codec's file as published; its ops must have been checked.

    tfc's range coders check their rows only if ``debug_level`` is 1, and read beyond their table.
    """
    graph_def = extract(file.metagraph.graph_def, signature.nodes())
    for node in all_nodes(graph_def):
        if "debug_level" in node.attr:
            node.attr["debug_level"].i = 1
    return Program(
        graph_def,
        [port.tensor for port in signature.inputs],
        [port.tensor for port in signature.outputs],
        threads=threads,
        producer_ops=file.producer_ops,
    )


def evaluate_constants(
    graph: Graph, refs: Sequence[TensorRef], image: TensorRef, producer_ops: Any = None
) -> Mapping[TensorRef, NDArray[Any]]:
    """Compute tensors of a flat, checked graph; CodecGraphError if one depends on the image."""
    # Stock ops have no effects, and a constant within a loop has a control input on the loop.
    needed = extract(without_control_inputs(graph.graph_def), [ref.node for ref in refs])
    names = [str(ref) for ref in refs]
    if any(node.name == image.node for node in needed.node):
        raise CodecGraphError(f"expected constants, one of which needs the image: {names}")
    program = Program(needed, [], names, producer_ops=producer_ops)
    return dict(zip(refs, program.run(), strict=True))


def _check_fixed_shapes(graph: Any) -> None:
    for op in graph.get_operations():
        for tensor in op.outputs:
            count = tensor.shape.num_elements()
            if count is not None and count * tensor.dtype.base_dtype.size > _MAX_TENSOR_BYTES:
                raise CodecGraphError(
                    f"{op.type} {op.name!r} makes a tensor of shape {tensor.shape}, which does not "
                    f"depend on the image, of more than {_MAX_TENSOR_BYTES:,} bytes"
                )


def _as_integers(key: str, value: NDArray[Any]) -> NDArray[np.int32]:
    if value.ndim != 4:
        raise CodecGraphError(
            f"expected {key} of shape (N, h, w, channels), got {value.shape}. Name the right tensor"
        )
    if value.dtype.kind not in "iuf":
        raise CodecGraphError(f"expected {key} to hold integers, got {value.dtype}")
    with np.errstate(invalid="ignore"):  # what is no number differs
        integers = value.astype(np.int32)
    if (integers != value).any():
        raise CodecGraphError(f"expected {key} to hold integers, got {value.dtype} fractions")
    if integers.size and not -MAX_SYMBOL <= integers.min() <= integers.max() <= MAX_SYMBOL:
        raise CodecGraphError(f"expected {key} from -{MAX_SYMBOL:,} to {MAX_SYMBOL:,}")
    return integers


def _reason(error: Exception) -> str:
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    lines = [line.strip() for line in str(text).splitlines()]
    reasons = [line for line in lines if line and not line.startswith(_NOT_A_REASON)]
    return reasons[0] if reasons else str(text).strip()
