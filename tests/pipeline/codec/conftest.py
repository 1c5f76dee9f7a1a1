"""Codecs that the tests of this folder share: built once, as files."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.pipeline.codec import by_hand, graphs


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
