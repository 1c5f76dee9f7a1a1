"""The scale hyperprior: layers, sizes, GDN, scale table, gradients."""

import math

import numpy as np
import pytest

from latentset.pipeline.codec.train.bmshj2018 import GDN, ScaleHyperprior, scale_of_index
from latentset.pipeline.tensorflow_setup import tf


def test_scale_table_runs_from_0_11_to_256_in_64_equal_ratios() -> None:
    table = scale_of_index(tf.range(64, dtype=tf.float32)).numpy()
    assert table[0] == pytest.approx(0.11, rel=1e-5)
    assert table[63] == pytest.approx(256, rel=1e-5)
    # (256 / 0.11) ** (1 / 63)
    np.testing.assert_allclose(table[1:] / table[:-1], 1.130932, rtol=1e-4)


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_follows_its_formula(inverse: bool) -> None:
    layer = GDN(inverse)
    layer.build((None, None, None, 2))
    layer.beta.variable.assign(np.sqrt([2.0, 3.0]))
    layer.gamma.variable.assign(np.sqrt([[0.5, 0.25], [1.0, 0.125]]))
    x = np.array([-4.0, 8.0])
    # beta_i + sum_j gamma_ji |x_j|
    norm = np.array([2 + 0.5 * 4 + 1.0 * 8, 3 + 0.25 * 4 + 0.125 * 8])
    expected = x * norm if inverse else x / norm
    y = layer(tf.constant(x, tf.float32, (1, 1, 1, 2))).numpy().ravel()
    np.testing.assert_allclose(y, expected, rtol=1e-4)


def test_filter_counts_are_those_of_figure_4() -> None:
    N, M = 6, 10
    model = ScaleHyperprior(N, M)
    gdn = N * N + N
    assert _parameters(model.g_a) == 25 * (3 * N + 2 * N * N + N * M) + 3 * N + M + 3 * gdn
    assert _parameters(model.g_s) == 25 * (M * N + 2 * N * N + N * 3) + 3 * N + 3 + 3 * gdn
    assert _parameters(model.h_a) == 9 * M * N + 2 * 25 * N * N + 2 * N
    assert _parameters(model.h_s) == 2 * 25 * N * N + 9 * N * M + 2 * N + M


def _parameters(transform: tf.keras.Sequential) -> int:
    return sum(math.prod(v.shape) for v in transform.trainable_variables)


@pytest.mark.parametrize(
    ("size", "y_size", "z_size"),
    [((64, 64), (4, 4), (1, 1)), ((375, 500), (24, 32), (6, 8)), ((1, 17), (1, 2), (1, 1))],
    ids=str,
)
def test_sizes_are_rounded_up_at_each_stride(
    size: tuple[int, int], y_size: tuple[int, int], z_size: tuple[int, int]
) -> None:
    model = ScaleHyperprior(2, 3)
    y = model.g_a(tf.zeros((1, *size, 3)))
    z = model.h_a(y)
    assert y.shape == (1, *y_size, 3)
    assert z.shape == (1, *z_size, 2)
    assert model.h_s(z).shape == (1, 4 * z_size[0], 4 * z_size[1], 3)
    assert model.g_s(y).shape == (1, 16 * y_size[0], 16 * y_size[1], 3)


def test_every_parameter_gets_a_gradient() -> None:
    tf.keras.utils.set_random_seed(1)
    model = ScaleHyperprior(4, 6)
    x = tf.random.stateless_uniform((2, 80, 112, 3), (1, 2), 0, 255)
    with tf.GradientTape() as tape:
        x_hat, bits = model(x)
        loss = tf.reduce_mean(bits) + tf.reduce_mean(tf.math.squared_difference(x, x_hat))
    assert x_hat.shape == x.shape
    assert bits.shape == (2,)
    assert (bits.numpy() > 0).all()
    gradients = tape.gradient(loss, model.trainable_variables)
    without = [
        v.name
        for v, g in zip(model.trainable_variables, gradients, strict=True)
        if g is None or not np.isfinite(g.numpy()).all() or not g.numpy().any()
    ]
    assert without == []


def test_bits_are_those_of_a_gaussian_with_the_scale_of_its_index() -> None:
    """A constant y, and a constant scale of 32 steps: the rate follows from the formula."""
    model = ScaleHyperprior(2, 3)
    for layer in (model.g_a.layers[-1], model.h_s.layers[-1]):
        layer.kernel_parameter.assign(tf.zeros_like(layer.kernel_parameter))
    index = 40.0
    model.h_s.layers[-1].bias_parameter.assign([index] * 3)
    size = 16 * 40
    _, bits = model(tf.zeros((1, size, size, 3)))
    sigma = 0.11 * (256 / 0.11) ** (index / 63)
    assert sigma == pytest.approx(15.08, abs=0.1)
    # y = 0, so y_tilde is uniform in [-1/2, 1/2] and its density about 1 / (sigma sqrt(2 pi)).
    y_bits = 3 * 40 * 40 * math.log2(sigma * math.sqrt(2 * math.pi))
    z_bits_at_most = 2 * 10 * 10 * 8
    assert y_bits < bits.numpy()[0] < y_bits * 1.01 + z_bits_at_most
