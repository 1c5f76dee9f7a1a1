"""Transposed convolutions whose size a graph computes, from the image or as it likes."""

from typing import Any

import numpy as np
import pytest

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.program import Program
from latentset.pipeline.tensorflow_setup import tf


def upsample(image: Any, side: Any) -> Any:
    """Twice the size, or what ``side`` says."""
    return tf.nn.conv2d_transpose(
        tf.cast(image, tf.float32), tf.ones((3, 3, 1, 3)), [1, side, side, 1], 2
    )


def make_program(change: int, *, in_function: bool) -> Program:
    """A graph whose sizes are right with a ``change`` of 0."""
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.uint8, (None, None, None, 3), "image")
        side = 2 * tf.shape(image)[1] + change
        called = tf.function(upsample) if in_function else upsample
        tf.identity(called(image, side), name="made")
    return Program(graph.as_graph_def(), ["image:0"], ["made:0"], image="image:0")


@pytest.mark.parametrize("in_function", [False, True])
@pytest.mark.parametrize("change", [-100, -(2**31), 2**31 - 40])
def test_sizes_that_would_end_the_process(change: int, in_function: bool) -> None:
    with pytest.raises(CodecGraphError, match="the codec's graph failed"):
        make_program(change, in_function=in_function).run(np.ones((1, 8, 8, 3), np.uint8))


@pytest.mark.parametrize("v1", [False, True])
def test_a_list_of_too_many_tensors(v1: bool) -> None:
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.uint8, (None, None, None, 3), "image")
        (tf.compat.v1.disable_control_flow_v2 if v1 else tf.compat.v1.enable_control_flow_v2)()
        values = tf.TensorArray(tf.int32, size=tf.shape(image)[1] * (1 << 27))
        tf.identity(values.write(3, 7).read(3), name="made")
    assert {"TensorArrayV3", "TensorListReserve"} & {node.op for node in graph.as_graph_def().node}
    program = Program(graph.as_graph_def(), ["image:0"], ["made:0"], image="image:0")
    assert program.run(np.ones((1, 8, 8, 3), np.uint8)) == [7]


@pytest.mark.parametrize("in_function", [False, True])
def test_an_index_of_a_list_that_is_no_scalar(in_function: bool) -> None:
    def second(image: Any) -> Any:
        index = tf.repeat(tf.constant(1), tf.shape(image)[0] * 7)
        items = tf.raw_ops.TensorListFromTensor(tensor=[4, 5], element_shape=tf.zeros(0, tf.int32))
        return tf.raw_ops.TensorListGetItem(
            input_handle=items,
            index=index,
            element_shape=tf.zeros(0, tf.int32),
            element_dtype=tf.int32,
        )

    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.uint8, (None, None, None, 3), "image")
        tf.identity((tf.function(second) if in_function else second)(image), name="made")
    program = Program(graph.as_graph_def(), ["image:0"], ["made:0"], image="image:0")
    with pytest.raises(CodecGraphError, match="the codec's graph failed"):
        program.run(np.ones((1, 8, 8, 3), np.uint8))


@pytest.mark.parametrize("in_function", [False, True])
def test_sizes_that_are_right(in_function: bool) -> None:
    (made,) = make_program(0, in_function=in_function).run(np.ones((1, 8, 8, 3), np.uint8))
    assert made.shape == (1, 16, 16, 1)
    assert made.min() == 3
