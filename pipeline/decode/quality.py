"""How near a decoded image is to its original: PSNR and MS-SSIM."""

from functools import lru_cache
from math import inf, log10
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.pipeline.codec.msssim import SMALLEST_SIDE, ms_ssim
from latentset.pipeline.tensorflow_setup import tf

PEAK = 255.0


def psnr_db(image: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> float:
    """PSNR over all pixels and channels of RGB, peak 255; infinite where the images are equal."""
    error = image.astype(np.int64) - decoded
    mse = float(np.mean(error * error))
    return 10 * log10(PEAK * PEAK / mse) if mse else inf


def mean_ms_ssim(image: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> float | None:
    """MS-SSIM, mean over the channels, 0 to 1; None for images with a side below 161 pixels."""
    height, width = image.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        return None
    session, inputs, output = _program(height, width)
    return float(session.run(output, dict(zip(inputs, (image, decoded), strict=True))))


@lru_cache(maxsize=16)
def _program(height: int, width: int) -> tuple[Any, list[Any], Any]:
    """A session of one thread, so that the last digits do not depend on the machine's cores."""
    with tf.Graph().as_default() as graph:
        inputs = [tf.compat.v1.placeholder(tf.uint8, (height, width, 3)) for _ in range(2)]
        x, x_hat = (tf.cast(image, tf.float32)[None] for image in inputs)
        output = ms_ssim(x, x_hat)[0]
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=1,
        inter_op_parallelism_threads=1,
        use_per_session_threads=True,
    )
    return tf.compat.v1.Session(graph=graph, config=config), inputs, output
