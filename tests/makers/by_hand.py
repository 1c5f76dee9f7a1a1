"""A tiny codec with known random weights, and its latents computed with numpy in float64.

Float32 kernels add up in an order that depends on the CPU, so a value near a rounding boundary may
be rounded to either side. How near is computed with every value, for float32 arithmetic in any
order, with or without fused multiply-add: n products and their sum are off by at most
L sqrt(n) u of the sum of their magnitudes, but for a probability of 2 exp(-L^2 / 2) (Higham and
Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41(5), 2019,
theorem 2.4, first order). Errors of the numbers that go in are taken as independent: their squares
add up, times the squares of the weights. Bounds that are certain are a thousand times wider here,
because every layer multiplies them by the sum of its weights' magnitudes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SCALES = np.exp(np.linspace(np.log(0.11), np.log(256.0), 64))
N, M = 6, 8
U = 2.0**-24
"""Unit roundoff of float32."""
L = 5.0
"""A single bound is wrong with a probability of 7e-6, if errors of rounding are independent."""


@dataclass(frozen=True)
class Weights:
    """Kernels of the four stages, (support, support, in, out), and what else a form needs."""

    g_a: list[Array]
    g_a_bias: list[Array]
    beta: list[Array]
    gamma: list[Array]
    h_a: list[Array]
    h_s: list[Array]
    h_s_bias: Array
    z_offset: Array


def make_weights(seed: int = 1, h_s_bias: float = 20.0) -> Weights:
    random = np.random.default_rng(seed)

    def kernel(support: int, inputs: int, outputs: int, gain: float) -> Array:
        scale = gain / np.sqrt(support * support * inputs)
        return random.normal(scale=scale, size=(support, support, inputs, outputs))

    return Weights(
        g_a=[
            kernel(5, 3, N, 6.0),
            kernel(5, N, N, 3.0),
            kernel(5, N, N, 3.0),
            kernel(5, N, M, 3.0),
        ],
        g_a_bias=[random.normal(scale=0.1, size=c) for c in (N, N, N, M)],
        beta=[1.0 + 0.1 * random.random(N) for _ in range(3)],
        gamma=[0.1 * np.eye(N) + 0.01 * random.random((N, N)) for _ in range(3)],
        h_a=[kernel(3, M, N, 1.0), kernel(5, N, N, 2.0), kernel(5, N, N, 2.0)],
        h_s=[kernel(5, N, N, 2.0), kernel(5, N, N, 2.0), kernel(3, N, M, 3.0)],
        h_s_bias=np.full(M, h_s_bias) + random.normal(size=M),
        z_offset=random.uniform(-0.4, 0.4, size=N).astype(np.float32).astype(np.float64),
    )


def _conv(x: Array, kernel: Array, stride: int) -> Array:
    """2-D correlation of one image (H, W, C) with zero padding as TensorFlow's SAME."""
    height, width, _ = x.shape
    support = kernel.shape[0]
    rows, columns = -(-height // stride), -(-width // stride)
    pads = [
        max((n - 1) * stride + support - side, 0) for n, side in ((rows, height), (columns, width))
    ]
    x = np.pad(
        x, [(pads[0] // 2, pads[0] - pads[0] // 2), (pads[1] // 2, pads[1] - pads[1] // 2), (0, 0)]
    )
    out = np.zeros((rows, columns, kernel.shape[3]))
    for i in range(support):
        for j in range(support):
            patch = x[
                i : i + (rows - 1) * stride + 1 : stride,
                j : j + (columns - 1) * stride + 1 : stride,
            ]
            out += patch @ kernel[i, j]
    return out


def _upsample_conv(x: Array, kernel: Array) -> Array:
    """Put a zero after every sample, then correlate; no transposed convolution involved."""
    height, width, channels = x.shape
    up = np.zeros((2 * height, 2 * width, channels))
    up[::2, ::2] = x
    return _conv(up, kernel, 1)


@dataclass(frozen=True)
class Near:
    """Numbers, and how far from them float32 arithmetic may end."""

    value: Array
    error: Array

    def map(self, function: Callable[[Array], Array]) -> Near:
        """Apply a function that enlarges no difference and rounds nothing."""
        return Near(function(self.value), self.error)

    def range_of(self, quantise: Callable[[Array], Array]) -> SymbolRange:
        """What an ascending quantiser may give."""
        return SymbolRange(quantise(self.value - self.error), quantise(self.value + self.error))


@dataclass(frozen=True)
class SymbolRange:
    """The least and the greatest symbols that values may be rounded to; mostly the same."""

    low: Array
    high: Array

    @property
    def certain(self) -> float:
        """Part of the symbols that are not near a rounding boundary."""
        return float((self.low == self.high).mean())

    def check(self, symbols: NDArray[np.int32]) -> None:
        """Raise AssertionError if a symbol is another one."""
        wrong = np.argwhere((symbols < self.low) | (symbols > self.high))
        assert symbols.shape == self.low.shape
        assert not len(wrong), [(tuple(k), symbols[tuple(k)], self.low[tuple(k)]) for k in wrong]


def _sum_products(
    x: Near, kernel: Array, convolve: Callable[[Array, Array], Array], bias: Array | float = 0.0
) -> Near:
    terms = kernel.size // kernel.shape[-1]
    size = convolve(np.abs(x.value), np.abs(kernel)) + np.abs(bias)
    # Besides products and sum: kernel and bias are rounded to float32, and the bias is added.
    rounding = L * np.sqrt(terms + 4) * U * size
    return Near(
        convolve(x.value, kernel) + bias, np.sqrt(convolve(x.error**2, kernel**2) + rounding**2)
    )


def _strided(stride: int) -> Callable[[Array, Array], Array]:
    return lambda x, kernel: _conv(x, kernel, stride)


def _gdn(x: Near, beta: Array, gamma: Array, v1: bool) -> Near:
    """v1: x / sqrt(beta + gamma x^2); v2: x / (beta + gamma |x|)."""
    if v1:
        squared = Near(x.value**2, 2 * np.abs(x.value) * x.error + x.error**2 + U * x.value**2)
    else:
        squared = x.map(np.abs)
    norm = _sum_products(squared, gamma, np.matmul, beta)
    power = 0.5 if v1 else 1.0
    least = norm.value - norm.error
    value = x.value / norm.value**power
    error = x.error / least**power + np.abs(x.value) * power * norm.error / least ** (1 + power)
    # TensorFlow's Rsqrt, which may replace the square root, is off by 3 units in the last place.
    return Near(value, error + 10 * U * np.abs(value))


def _rounded(x: Near, offset: Array | float, v1: bool) -> SymbolRange:
    """v1: floor(x + (1/2 - offset)); v2: round(x - offset)."""
    shifted = Near(x.value - offset, x.error + 4 * U * (np.abs(x.value) + 1))
    return shifted.range_of(lambda values: np.floor(values + 0.5) if v1 else np.round(values))


def encode_by_hand(
    weights: Weights, image: NDArray[np.uint8], *, v1: bool
) -> tuple[SymbolRange, SymbolRange]:
    """Compute what ``y_hat`` (h, w, M) and ``z_hat`` (hz, wz, N) of an image may be."""
    x = Near(image / 255.0, 2 * U * image / 255.0)
    for i in range(4):
        x = _sum_products(x, weights.g_a[i], _strided(2), weights.g_a_bias[i])
        if i < 3:
            x = _gdn(x, weights.beta[i], weights.gamma[i], v1)
    y = x
    z = _sum_products(y.map(np.abs), weights.h_a[0], _strided(1)).map(_relu)
    z = _sum_products(z, weights.h_a[1], _strided(2)).map(_relu)
    z = _sum_products(z, weights.h_a[2], _strided(2))
    return _rounded(y, 0.0, v1), _rounded(z, weights.z_offset, v1)


def scale_index_by_hand(
    weights: Weights, z_hat: NDArray[np.int32], size: tuple[int, int], *, v1: bool
) -> SymbolRange:
    """Compute what the scale index (h, w, M) may be, given the ``z_hat`` that there is.

    One symbol of z_hat decides all scales around it, so it is taken as the graph gives it.
    """
    value = z_hat + weights.z_offset
    h = Near(value, 2 * U * np.abs(value))
    h = _sum_products(h, weights.h_s[0], _upsample_conv).map(_relu)
    h = _sum_products(h, weights.h_s[1], _upsample_conv).map(_relu)
    h = _sum_products(h, weights.h_s[2], _strided(1), weights.h_s_bias)
    h = Near(h.value[: size[0], : size[1]], h.error[: size[0], : size[1]])
    if not v1:
        return h.range_of(lambda values: np.floor(np.clip(values, 0, 63)))
    logarithm = Near(h.value / 7 - 2.5, h.error / 7 + 4 * U * (np.abs(h.value) / 7 + 2.5))
    # TensorFlow's Exp, and the table in float32, are off by a unit in the last place each.
    logarithm = Near(logarithm.value, logarithm.error + 8 * U)
    return logarithm.range_of(
        lambda values: (
            63 - (np.maximum(np.exp(values), SCALES[0])[..., None] <= SCALES[:-1]).sum(-1)
        )
    )


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)
