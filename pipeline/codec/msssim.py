"""Multi-scale structural similarity, fast on CPU: Gaussian windows as two matrix products."""

import numpy as np

from latentset.pipeline.tensorflow_setup import tf

POWERS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales.  Source: Wang, Simoncelli, Bovik 2003, section 3.2."""
SMALLEST_SIDE = 161
"""Pixels: halved four times, rounded up, a window still fits."""
WINDOW = 11
WINDOW_SIGMA = 1.5
C1 = (0.01 * 255) ** 2
C2 = (0.03 * 255) ** 2


def ms_ssim(x: tf.Tensor, x_hat: tf.Tensor, *, least: float = 0.0) -> tf.Tensor:
    """Return the MS-SSIM of each pair of images.

    The same value as ``tf.image.ssim_multiscale(x, x_hat, 255)``, where ``least`` is 0. Two banded
    matrices cost less on CPU than its dense 11x11 convolution, in the backward pass above all.

    Images are float32 (B, H, W, 3), 0 to 255, H and W static and at least 161. Returned is the mean
    over channels, float32 (B,). ``least`` bounds each scale's similarity from below: a loss wants
    one above 0, where the gradient of its power is infinite.

    Source:
        Wang, Simoncelli, Bovik: "Multiscale structural similarity for image quality
        assessment", Asilomar 2003, equations 6 and 7.
    """
    x, x_hat = (tf.transpose(image, (0, 3, 1, 2)) for image in (x, x_hat))  # (B, 3, H, W)
    factors = []
    for scale, power in enumerate(POWERS):
        if scale > 0:
            x, x_hat = _halve(x), _halve(x_hat)
        luminance, contrast_structure = _ssim_maps(x, x_hat)
        last = scale == len(POWERS) - 1
        similarity = luminance * contrast_structure if last else contrast_structure
        mean = tf.reduce_mean(similarity, axis=(2, 3))  # (B, 3)
        factors.append(tf.maximum(mean, least) ** power)
    return tf.reduce_mean(tf.reduce_prod(tf.stack(factors), axis=0), axis=-1)


def _ssim_maps(x: tf.Tensor, x_hat: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    stacked = tf.concat([x, x_hat, x * x_hat, x * x + x_hat * x_hat], axis=0)
    mu, mu_hat, product, squares = tf.split(_blur(stacked), 4)
    mu_product = mu * mu_hat
    mu_squares = mu * mu + mu_hat * mu_hat
    luminance = (2 * mu_product + C1) / (mu_squares + C1)
    contrast_structure = (2 * (product - mu_product) + C2) / (squares - mu_squares + C2)
    return luminance, contrast_structure


def _blur(maps: tf.Tensor) -> tf.Tensor:
    """Gaussian window, positions where it fits only: (..., H, W) to (..., W - 10, H - 10)."""
    height, width = maps.shape[-2:]
    rows = tf.tensordot(maps, tf.constant(_window_matrix(width)), 1)
    return tf.tensordot(tf.transpose(rows, (0, 1, 3, 2)), tf.constant(_window_matrix(height)), 1)


def _window_matrix(size: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Banded matrix (size, size - 10) whose product is the one-dimensional window."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-0.5 * (offsets / WINDOW_SIGMA) ** 2)
    window /= window.sum()
    matrix = np.zeros((size, size - WINDOW + 1), np.float32)
    for i in range(size - WINDOW + 1):
        matrix[i : i + WINDOW, i] = window
    return matrix


def _halve(image: tf.Tensor) -> tf.Tensor:
    """Mean of 2x2 pixels: (B, 3, H, W) to (B, 3, H/2, W/2); odd sides repeat their last pixel."""
    height, width = image.shape[2:]
    if height % 2 or width % 2:
        image = tf.pad(image, [(0, 0), (0, 0), (0, height % 2), (0, width % 2)], "SYMMETRIC")
        height, width = image.shape[2:]
    split = tf.reshape(image, (-1, 3, height // 2, 2, width // 2, 2))
    return tf.reduce_mean(split, axis=(3, 5))
