"""Codecs for the tests of this folder: built once, as files."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.makers import by_hand, graphs
from tests.makers.published import build_published


@pytest.fixture(scope="session")
def weights() -> by_hand.Weights:
    return by_hand.make_weights()


@pytest.fixture(scope="session")
def v2_path(weights: by_hand.Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("codecs") / "tiny-v2.metagraph"
    path.write_bytes(graphs.build_v2(weights).SerializeToString())
    return path


@pytest.fixture(scope="session")
def v1_path(weights: by_hand.Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("codecs") / "tiny-v1.metagraph"
    path.write_bytes(graphs.build_v1(weights).SerializeToString())
    return path


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    """Eight images of 75x118: smooth, so that neither side nor rate is a special case."""
    random = np.random.default_rng(3)
    coarse = random.integers(0, 256, (8, 10, 15, 3)).repeat(8, 1).repeat(8, 2)[:, :75, :118]
    fine = random.normal(scale=12, size=coarse.shape)
    return np.clip(coarse + fine, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def published_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec with random weights, of which the listing of msssim-4 is true."""
    path = tmp_path_factory.mktemp("codecs") / "bmshj2018-hyperprior-msssim-4.metagraph"
    path.write_bytes(build_published(128, 192, z_width=40).SerializeToString())
    return path


@pytest.fixture(scope="session")
def published_tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small codec of the published form."""
    path = tmp_path_factory.mktemp("codecs") / "tiny-published.metagraph"
    path.write_bytes(build_published().SerializeToString())
    return path
