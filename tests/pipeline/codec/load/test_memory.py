"""A graph that would take all memory while it runs."""

import pickle
import resource
from threading import Thread
from typing import Any

import numpy as np
import pytest
from distributed.core import error_message

from latentset.pipeline.codec.load.memory import limited_memory
from latentset.pipeline.codec.load.program import Program
from latentset.pipeline.tensorflow_setup import tf


def test_a_tensor_that_grows_with_the_image_is_refused() -> None:
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.uint8, (None, None, None, 3), "image")
        side = 1000 * tf.shape(image)[1]
        tf.reduce_max(tf.fill([side, side], 1.0), name="largest")
    program = Program(graph.as_graph_def(), ["image:0"], ["largest:0"], image="image:0")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    assert program.run(np.zeros((1, 8, 8, 3), np.uint8)) == [1.0]  # 256 MB
    with pytest.raises(MemoryError, match="OOM when allocating tensor") as caught:
        program.run(np.zeros((1, 40, 8, 3), np.uint8))  # 6.4 GB
    sent = error_message(caught.value)
    assert isinstance(pickle.loads(sent["exception"].data), MemoryError)  # by a worker
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_threads_share_the_highest_limit() -> None:
    before, found = resource.getrlimit(resource.RLIMIT_DATA), []

    def allocate(_: Any = None) -> None:
        found.append(len(bytearray(2 << 30)))

    with limited_memory(1 << 30):
        with pytest.raises(MemoryError):
            allocate()
        with limited_memory(4 << 30):
            thread = Thread(target=allocate)
            thread.start()
            thread.join()
    assert found == [2 << 30]
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
