"""The scale hyperprior of Balle et al. (2018) as a trainable TensorFlow model."""

import math
from typing import Any, NamedTuple

from latentset.pipeline.tensorflow_setup import tf, tfc

SCALE_MIN = 0.11
SCALE_MAX = 256.0
SCALE_COUNT = 64
"""The scale table of the published codecs: 64 values, equally spaced in their logarithm."""


class TrainingOutput(NamedTuple):
    """What one pass over a batch yields."""

    x_hat: tf.Tensor
    """Reconstruction, float32 (B, H, W, 3), about 0 to 255, not clipped."""
    bits: tf.Tensor
    """Estimated bits of each image, y and z together, float32 (B,)."""


def scale_of_index(index: Any) -> Any:
    """Map a scale index to a standard deviation.

    Args:
        index: Scale index, float32, any shape, 0 to 63.  Fractions interpolate.

    Returns:
        sigma_hat, float32, the same shape, 0.11 to 256.

    Source:
        tensorflow/compression, ``models/bmshj2018.py``: the table's bounds and length.
    """
    step = (math.log(SCALE_MAX) - math.log(SCALE_MIN)) / (SCALE_COUNT - 1)
    return tf.exp(math.log(SCALE_MIN) + step * index)


_CONVOLUTION: dict[str, Any] = {"padding": "same_zeros", "kernel_parameter": "variable"}
"""Plain kernels: the library's default, Fourier coefficients, makes a training step on CPU 1.6
times as long."""


def _down(filters: int, support: int, stride: int, **options: Any) -> Any:
    return tfc.SignalConv2D(
        filters, support, corr=True, strides_down=stride, **_CONVOLUTION, **options
    )


def _up(filters: int, support: int, stride: int, **options: Any) -> Any:
    return tfc.SignalConv2D(
        filters, support, corr=False, strides_up=stride, **_CONVOLUTION, **options
    )


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
        """Create the layer.

        Args:
            inverse: Multiply instead of divide.
            **options: Passed to ``tf.keras.layers.Layer``.
        """
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
        return normalize(x, self.beta(), self.gamma(), self.inverse)


def normalize(x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor, inverse: bool) -> tf.Tensor:
    """Apply GDN with given parameters.

    Args:
        x: float32 (B, H, W, C).
        beta: float32 (C,).
        gamma: float32 (C, C), from input channel to output channel.
        inverse: Multiply instead of divide.

    Returns:
        float32 (B, H, W, C).
    """
    norm = tf.nn.bias_add(tf.nn.conv2d(tf.abs(x), gamma[None, None], 1, "VALID"), beta)
    return x * norm if inverse else x / norm


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
    """

    def __init__(self, N: int, M: int, seed: int = 0) -> None:
        """Create the four transforms and the hyperprior, untrained.

        Args:
            N: Filters of all layers but those that face ``y``.
            M: Channels of ``y``.
            seed: Decides the random kernels.
        """
        super().__init__(name="scale_hyperprior")
        self.N = N
        self.M = M
        relu = tf.nn.relu
        self.g_a = tf.keras.Sequential(
            [
                _down(N, 5, 2, use_bias=True, activation=GDN(name="gdn_0"), name="conv_0"),
                _down(N, 5, 2, use_bias=True, activation=GDN(name="gdn_1"), name="conv_1"),
                _down(N, 5, 2, use_bias=True, activation=GDN(name="gdn_2"), name="conv_2"),
                _down(M, 5, 2, use_bias=True, activation=None, name="conv_3"),
            ],
            name="g_a",
        )
        self.g_s = tf.keras.Sequential(
            [
                _up(
                    N,
                    5,
                    2,
                    use_bias=True,
                    activation=GDN(True, name="gdn_0"),
                    name="conv_0",
                ),
                _up(
                    N,
                    5,
                    2,
                    use_bias=True,
                    activation=GDN(True, name="gdn_1"),
                    name="conv_1",
                ),
                _up(
                    N,
                    5,
                    2,
                    use_bias=True,
                    activation=GDN(True, name="gdn_2"),
                    name="conv_2",
                ),
                _up(3, 5, 2, use_bias=True, activation=None, name="conv_3"),
            ],
            name="g_s",
        )
        self.h_a = tf.keras.Sequential(
            [
                _down(N, 3, 1, use_bias=True, activation=relu, name="conv_0"),
                _down(N, 5, 2, use_bias=True, activation=relu, name="conv_1"),
                _down(N, 5, 2, use_bias=False, activation=None, name="conv_2"),
            ],
            name="h_a",
        )
        self.h_s = tf.keras.Sequential(
            [
                _up(N, 5, 2, use_bias=True, activation=relu, name="conv_0"),
                _up(N, 5, 2, use_bias=True, activation=relu, name="conv_1"),
                _up(M, 3, 1, use_bias=True, activation=None, name="conv_2"),
            ],
            name="h_s",
        )
        layers = [
            layer
            for transform in (self.g_a, self.g_s, self.h_a, self.h_s)
            for layer in transform.layers
        ]
        for number, layer in enumerate(layers):
            # With a seed each: without, Keras draws one by random.randint(1, 1e9), which Python
            # has deprecated for its fractional bound.
            layer.kernel_initializer = tf.keras.initializers.VarianceScaling(
                seed=seed * len(layers) + number
            )
        self.hyperprior = tfc.NoisyDeepFactorized(batch_shape=(N,))
        self.g_a.build((None, None, None, 3))
        self.g_s.build((None, None, None, M))
        self.h_a.build((None, None, None, M))
        self.h_s.build((None, None, None, N))

    def __call__(self, x: tf.Tensor) -> TrainingOutput:
        """Pass a batch through with additive uniform noise in place of rounding.

        Args:
            x: Images, float32 (B, H, W, 3), 0 to 255, H and W multiples of 16.

        Returns:
            The reconstruction and the estimated bits.
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
        return TrainingOutput(x_hat, y_bits + z_bits)
