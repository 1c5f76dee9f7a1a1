"""A checked part of a codec's graph, imported and ready to run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.allowed_ops import RANGE_CODER_OPS
from latentset.pipeline.codec.load.graph import (
    Graph,
    TensorRef,
    extract,
    register_range_coder_ops,
    without_control_inputs,
)
from latentset.pipeline.tensorflow_setup import tf

_NOT_A_REASON = ("Graph execution error", "Detected at node", "Node:", "[[")
"""What lines of TensorFlow's messages begin with that give no reason."""


class Program:
    """A graph in a session of its own.

    The ops must have been checked before (``allowed_ops``): importing and running checks nothing.

    Args:
        graph_def: What to import, already cut to what is needed.
        inputs: Names of the tensors that take values.
        outputs: Names of the tensors to compute.
        threads: Threads within one op.
        image: The tensor among ``inputs`` that takes images of any size and number: it is replaced
            by a uint8 placeholder (N, H, W, 3).
        producer_ops: The metagraph's ``stripped_op_list``: newer ops can be read with it.

    Raises:
        CodecGraphError: TensorFlow does not accept the graph.
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
            register_range_coder_ops()
        with tf.Graph().as_default() as graph:
            replaced = {}
            if image is not None:
                placeholder = tf.compat.v1.placeholder(
                    tf.uint8, (None, None, None, 3), name="latentset_image"
                )
                # What waits for the image without taking it waits for this one.
                replaced = {image: placeholder, "^" + image.partition(":")[0]: placeholder}
            try:
                tf.import_graph_def(
                    graph_def, input_map=replaced, name="", producer_op_list=producer_ops
                )
                self._inputs = [
                    replaced[name] if name in replaced else graph.get_tensor_by_name(name)
                    for name in inputs
                ]
                self._outputs = [graph.get_tensor_by_name(name) for name in outputs]
            except (ValueError, KeyError, tf.errors.OpError) as error:
                raise CodecGraphError(f"TensorFlow cannot import the graph: {error}") from error
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
        """Compute the outputs from one value an input, in their order.

        Raises:
            CodecGraphError: TensorFlow reports an error, as for sizes that do not fit.
            MemoryError: The values do not fit into memory.
        """
        feeds = dict(zip(self._inputs, values, strict=True))
        try:
            return [np.asarray(v) for v in self._session.run(self._outputs, feeds)]
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError(f"TensorFlow: {_reason(error)}") from error
        except (tf.errors.OpError, ValueError) as error:
            raise CodecGraphError(f"the codec's graph failed: {_reason(error)}") from error


def evaluate_constants(
    graph: Graph, refs: Sequence[TensorRef], image: TensorRef, producer_ops: Any = None
) -> Mapping[TensorRef, NDArray[Any]]:
    """Compute tensors of a flat, checked graph that must not depend on the image.

    Control inputs are dropped: stock ops have no effects, and a constant within a loop has one on
    the loop.

    Raises:
        CodecGraphError: One of them depends on the image.
    """
    needed = extract(without_control_inputs(graph.graph_def), [ref.node for ref in refs])
    if any(node.name == image.node for node in needed.node):
        names = ", ".join(str(ref) for ref in refs)
        raise CodecGraphError(f"expected constants, but one of them needs the image: {names}")
    program = Program(needed, [], [str(ref) for ref in refs], producer_ops=producer_ops)
    return dict(zip(refs, program.run(), strict=True))


def _reason(error: Exception) -> str:
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    lines = [line.strip() for line in str(text).splitlines()]
    reasons = [line for line in lines if line and not line.startswith(_NOT_A_REASON)]
    return reasons[0] if reasons else str(text).strip()
