"""What a session computes, after TensorFlow has rewritten the graph."""

import numpy as np
import pytest

from latentset.pipeline.codec.graph import divide_exactly
from latentset.pipeline.codec.program import Program
from latentset.pipeline.tensorflow_setup import tf


@pytest.mark.parametrize("op", ["rsqrt", "reciprocal"])
def test_quotients_are_rounded_correctly(op: str) -> None:
    """In the graph of GDN, where TensorFlow knows that the result has the divisor's shape."""
    gamma, beta = np.eye(8, dtype=np.float32)[None, None], np.full(8, 0.5, np.float32)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, None, None, 8), "x")
        total = tf.nn.bias_add(tf.nn.conv2d(tf.square(x), gamma, 1, "VALID"), beta, name="total")
        tf.multiply(x, getattr(tf.math, op)(total), name="product")
    program = Program(divide_exactly(graph.as_graph_def()), ["x:0"], ["total:0", "product:0"])
    values = np.random.default_rng(0).uniform(-4, 4, (1, 100, 100, 8)).astype(np.float32)
    divisor, product = program.run(values)
    # NumPy's square root and quotient are correctly rounded, as IEEE 754 asks.
    factor = np.float32(1) / (np.sqrt(divisor) if op == "rsqrt" else divisor)
    np.testing.assert_array_equal(product, values * factor)
