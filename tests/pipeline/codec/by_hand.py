"""A tiny codec with known random weights, and its latents worked out with numpy in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SCALES = np.exp(np.linspace(np.log(0.11), np.log(256.0), 64))
N, M = 6, 8


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


def _gdn(x: Array, beta: Array, gamma: Array, v1: bool) -> Array:
    norm = np.sqrt(beta + (x * x) @ gamma) if v1 else beta + np.abs(x) @ gamma
    return np.asarray(x / norm)


@dataclass(frozen=True)
class HandMade:
    """Latents of one image before rounding, and after."""

    y: Array
    z: Array
    y_hat: NDArray[np.int64]
    scale: Array
    """v2: the scale index before truncation. v1: sigma."""
    scale_index: NDArray[np.int64]
    z_hat: NDArray[np.int64]


def encode_by_hand(weights: Weights, image: NDArray[np.uint8], *, v1: bool) -> HandMade:
    x = image / 255.0
    for i in range(4):
        x = _conv(x, weights.g_a[i], 2) + weights.g_a_bias[i]
        if i < 3:
            x = _gdn(x, weights.beta[i], weights.gamma[i], v1)
    y = x
    z = np.maximum(_conv(np.abs(y), weights.h_a[0], 1), 0)
    z = np.maximum(_conv(z, weights.h_a[1], 2), 0)
    z = _conv(z, weights.h_a[2], 2)
    if v1:
        y_hat = np.floor(y + 0.5)
        z_hat = np.floor(z + 0.5 - weights.z_offset)
    else:
        y_hat = np.round(y)
        z_hat = np.round(z - weights.z_offset)
    h = np.maximum(_upsample_conv(z_hat + weights.z_offset, weights.h_s[0]), 0)
    h = np.maximum(_upsample_conv(h, weights.h_s[1]), 0)
    h = (_conv(h, weights.h_s[2], 1) + weights.h_s_bias)[: y.shape[0], : y.shape[1]]
    if v1:
        scale = np.maximum(np.exp(h / 7.0 - 2.5), SCALES[0])
        index = 63 - (scale[..., None] <= SCALES[:-1]).sum(-1)
    else:
        scale = np.clip(h, 0, 63)
        index = np.floor(scale)
    return HandMade(y, z, y_hat.astype(int), scale, index.astype(int), z_hat.astype(int))
