"""MS-SSIM of decoded images is TensorFlow's own, for odd sizes too."""

import numpy as np
import pytest

from latentset.pipeline.decode.quality import mean_ms_ssim, psnr_db
from latentset.pipeline.tensorflow_setup import tf


@pytest.mark.parametrize("size", [(176, 192), (161, 175), (163, 201)])
def test_ms_ssim_is_tensorflows(size: tuple[int, int]) -> None:
    random = np.random.default_rng(size[1])
    coarse = random.integers(0, 256, (30, 30, 3)).repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]
    image = coarse.astype(np.uint8)
    # Most of it at the edges, where odd sides are padded.
    error = random.normal(0, 5, coarse.shape)
    error[-12:] *= 20
    error[:, -12:] *= 20
    decoded = np.clip(coarse + error, 0, 255).astype(np.uint8)
    expected = float(tf.image.ssim_multiscale(tf.constant(image), tf.constant(decoded), 255))
    assert 0.9 < expected < 0.999
    assert mean_ms_ssim(image, decoded) == pytest.approx(expected, abs=4e-6)


def test_structure_that_is_turned_over_has_none_of_it() -> None:
    """A scale whose mean similarity is negative makes the whole 0, as in TensorFlow."""
    random = np.random.default_rng(0)
    noise = random.integers(-40, 41, (176, 176, 3))
    image, decoded = (np.full(noise.shape, 128, np.uint8) + sign * noise for sign in (1, -1))
    images = [pixels.astype(np.uint8) for pixels in (image, decoded)]
    assert float(tf.image.ssim_multiscale(*map(tf.constant, images), 255)) == 0
    assert mean_ms_ssim(*images) == 0


def test_small_images_have_none() -> None:
    image = np.zeros((160, 300, 3), np.uint8)
    assert mean_ms_ssim(image, image) is None


def test_psnr_of_one_wrong_pixel() -> None:
    image = np.full((4, 5, 3), 250, np.uint8)
    decoded = image.copy()
    decoded[0, 0, 0] = 10  # an error of 240, beyond int8
    # mse = 240^2 / 60 = 960
    assert psnr_db(image, decoded) == pytest.approx(18.3081, abs=1e-4)
