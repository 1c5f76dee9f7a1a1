"""MS-SSIM as training computes it, against TensorFlow's own."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from latentset.pipeline.codec.msssim import ms_ssim
from latentset.pipeline.tensorflow_setup import tf


@pytest.fixture(params=[(176, 176), (192, 256)], ids=str)
def pair(request: pytest.FixtureRequest) -> tuple[tf.Tensor, tf.Tensor]:
    """Two smooth random images and noisy versions of them."""
    generator = np.random.default_rng(3)
    coarse = generator.uniform(0, 255, (2, 11, 11, 3)).astype(np.float32)
    x = tf.image.resize(coarse, request.param)
    noise = generator.normal(0, 15, x.shape).astype(np.float32)
    return x, tf.clip_by_value(x + noise, 0, 255)


def test_equals_tensorflow(pair: tuple[tf.Tensor, tf.Tensor]) -> None:
    x, x_hat = pair
    expected = tf.image.ssim_multiscale(x, x_hat, 255).numpy()
    assert 0.3 < expected.min() < expected.max() < 0.99
    np.testing.assert_allclose(ms_ssim(x, x_hat).numpy(), expected, atol=2e-5)


def test_gradient_equals_tensorflows(pair: tuple[tf.Tensor, tf.Tensor]) -> None:
    x, x_hat = pair
    gradients = []
    functions: tuple[Callable[..., tf.Tensor], ...] = (
        partial(ms_ssim, least=1e-6),
        lambda a, b: tf.image.ssim_multiscale(a, b, 255),
    )
    for function in functions:
        with tf.GradientTape() as tape:
            tape.watch(x_hat)
            value = tf.reduce_sum(function(x, x_hat))
        gradients.append(tape.gradient(value, x_hat).numpy())
    ours, theirs = gradients
    np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.abs(theirs).max())


def test_identical_images_score_one() -> None:
    x = tf.random.stateless_uniform((1, 176, 176, 3), (1, 2), 0, 255)
    assert ms_ssim(x, x).numpy() == pytest.approx(1, abs=1e-4)


def test_unrelated_images_have_a_finite_gradient() -> None:
    x = tf.random.stateless_uniform((1, 176, 176, 3), (1, 2), 0, 255)
    x_hat = tf.Variable(255 - x)  # negative correlation: below the range of the powers
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(ms_ssim(x, x_hat, least=1e-6))
    assert value.numpy() < 0.01
    assert np.isfinite(tape.gradient(value, x_hat).numpy()).all()
