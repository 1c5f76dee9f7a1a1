"""What a session computes, after TensorFlow has rewritten the graph."""

import os
import subprocess
import sys

import numpy as np
import pytest

from latentset.pipeline.codec.load.codec import Codec, load_codec
from latentset.pipeline.codec.load.graph import divide_exactly
from latentset.pipeline.codec.load.program import Program
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


def test_a_new_session_computes_the_same_symbols() -> None:
    codec: Codec = load_codec("demo-hyperprior-msssim-1", self_check=False)
    images = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), np.uint8)
    codec.encode(images[:, :64, :64])
    after_another_size = codec.encode(images)
    codec._analysis.restart()
    latents = codec.encode(images)
    for key in ("y_hat", "scale_index", "z_hat"):
        np.testing.assert_array_equal(getattr(latents, key), getattr(after_another_size, key))


def test_weights_are_kept_in_the_order_that_images_ask_for() -> None:
    """What the checks at load have run is forgotten; h_s's two are reordered at every run."""
    program = """
import numpy as np
from latentset.pipeline.codec.load.codec import load_codec
codec = load_codec("demo-hyperprior-msssim-4")
image = np.zeros((1, 256, 256, 3), np.uint8)
codec.encode(image)
print("second", flush=True)
codec.encode(image)
"""
    settings = {"ONEDNN_VERBOSE": "1", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | settings,
        check=True,
        text=True,
        capture_output=True,
    )
    second = done.stdout.partition("second")[2]
    assert second.count(",reorder,") <= 2
