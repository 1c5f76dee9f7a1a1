"""The scale hyperprior of Balle et al. (2018) as a trainable TensorFlow model."""

import math
from typing import Any

from latentset.pipeline.codec.load.code_tables import SCALE_COUNT, SCALE_MAX, SCALE_MIN
from latentset.pipeline.tensorflow_setup import tf, tfc


def scale_of_index(index: Any) -> Any:
    """Map a scale index, float32, 0 to 63, to sigma_hat, 0.11 to 256; fractions interpolate."""
    step = (math.log(SCALE_MAX) - math.log(SCALE_MIN)) / (SCALE_COUNT - 1)
    return tf.exp(math.log(SCALE_MIN) + step * index)


def _convolution(i: int, filters: int, support: int, **options: Any) -> Any:
    # The library's default, Fourier coefficients, makes a training step on CPU 1.6 times as long.
    settings = {"padding": "same_zeros", "kernel_parameter": "variable", "use_bias": True} | options
    return tfc.SignalConv2D(filters, support, name=f"conv_{i}", **settings)


def _down(i: int, filters: int, support: int, stride: int, act: Any = None, **more: Any) -> Any:
    options = {"strides_down": stride, "activation": act} | more
    return _convolution(i, filters, support, corr=True, **options)


def _up(i: int, filters: int, support: int, stride: int, act: Any = None) -> Any:
    return _convolution(i, filters, support, corr=False, strides_up=stride, activation=act)


class GDN(tf.keras.layers.Layer):  # type: ignore[misc]
    """Generalized divisive normalization, ``x / (beta + gamma |x|)``, or ``x * (...)``.

    Source:
        Balle, Laparra, Simoncelli: "End-to-end optimized image compression", ICLR 2017,
        equations 1 and 3; exponents as in tensorflow-compression 2, both 1.

    Deviations:
        ``tfc.GDN`` compares its exponents with 1 by ``==``, which in a ``tf.function`` becomes
        conditional operations and in a ``tf.Graph`` is false, so that ``|x|`` becomes ``x ** 1``.
    """

    def __init__(self, inverse: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.inverse = inverse

    def build(self, input_shape: Any) -> None:
        """Create beta (C,), at least 1e-6, and gamma (C, C), at least 0."""
        channels = int(input_shape[-1])
        self.beta = tfc.GDNParameter(tf.ones(channels), name="beta", minimum=1e-6)
        self.gamma = tfc.GDNParameter(0.1 * tf.eye(channels), name="gamma")
        super().build(input_shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Normalize across channels: float32 (B, H, W, C) to the same shape."""
        gamma = self.gamma()[None, None]  # from input channel to output channel
        norm = tf.nn.bias_add(tf.nn.conv2d(tf.abs(x), gamma, 1, "VALID"), self.beta())
        return x * norm if self.inverse else x / norm


class ScaleHyperprior(tf.Module):  # type: ignore[misc]
    """Transform codec whose latents are zero-mean Gaussians with transmitted scales.

    ::

        x -> g_a -> y ----------> Q -> y_hat -> g_s -> x_hat
                    |                    |
                   |y|               coded with
                    |                 sigma_hat
                    h_a -> z -> Q -> z_hat -> h_s -> scale index

    ``g_a`` and ``g_s`` are four 5x5 convolutions of stride 2 with GDN and its inverse between
    them; ``h_a`` and ``h_s`` one of 3x3 and two of 5x5 with stride 2, and ReLU.

    Source:
        Balle, Minnen, Singh, Hwang, Johnston: "Variational image compression with a scale
        hyperprior", ICLR 2018, arXiv 1802.01436, figure 4 and section 3.

    Deviations:
        - GDN divides by ``beta + gamma |x|`` (the form of tensorflow-compression 2) and not by
          ``sqrt(beta + gamma x^2)``.
        - ``h_s`` yields an index into a table of 64 scales, so that sender and receiver agree
          on sigma_hat to the bit (Balle et al., "Integer networks", ICLR 2019).

    N is the number of filters of all layers but those that face ``y``, which has M channels.
    ``seed`` decides the random kernels.
    """

    def __init__(self, N: int, M: int, seed: int = 0) -> None:
        super().__init__(name="scale_hyperprior")
        self.N = N
        self.M = M
        relu = tf.nn.relu
        self.g_a = tf.keras.Sequential(
            [_down(i, N, 5, 2, GDN(name=f"gdn_{i}")) for i in range(3)] + [_down(3, M, 5, 2)],
            name="g_a",
        )
        self.g_s = tf.keras.Sequential(
            [_up(i, N, 5, 2, GDN(True, name=f"gdn_{i}")) for i in range(3)] + [_up(3, 3, 5, 2)],
            name="g_s",
        )
        self.h_a = tf.keras.Sequential(
            [_down(0, N, 3, 1, relu), _down(1, N, 5, 2, relu), _down(2, N, 5, 2, use_bias=False)],
            name="h_a",
        )
        self.h_s = tf.keras.Sequential(
            [_up(0, N, 5, 2, relu), _up(1, N, 5, 2, relu), _up(2, M, 3, 1)], name="h_s"
        )
        transforms = ((self.g_a, 3), (self.g_s, M), (self.h_a, M), (self.h_s, N))
        layers = [layer for transform, _ in transforms for layer in transform.layers]
        for number, layer in enumerate(layers):
            # With a seed each: without, Keras draws one by random.randint(1, 1e9), which Python
            # has deprecated for its fractional bound.
            layer.kernel_initializer = tf.keras.initializers.VarianceScaling(
                seed=seed * len(layers) + number
            )
        self.hyperprior = tfc.NoisyDeepFactorized(batch_shape=(N,))
        for transform, channels in transforms:
            transform.build((None, None, None, channels))

    def __call__(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Pass images through with additive uniform noise in place of rounding.

        Images are float32 (B, H, W, 3), 0 to 255, H and W multiples of 16. Returned are x_hat, not
        clipped, and the estimated bits of y and z together, (B,).
        """
        z_model = tfc.ContinuousBatchedEntropyModel(
            self.hyperprior, coding_rank=3, offset_heuristic=False
        )
        y_model = tfc.LocationScaleIndexedEntropyModel(
            tfc.NoisyNormal, SCALE_COUNT, scale_of_index, coding_rank=3
        )
        y = self.g_a(x / 255.0)  # (B, H/16, W/16, M)
        z = self.h_a(tf.abs(y))  # (B, H/64, W/64, N), rounded up
        z_tilde, z_bits = z_model(z, training=True)
        index = self.h_s(z_tilde)[:, : tf.shape(y)[1], : tf.shape(y)[2], :]
        y_tilde, y_bits = y_model(y, index, training=True)
        x_hat = self.g_s(y_tilde) * 255.0
        return x_hat, y_bits + z_bits
