"""What tests of sharing have in common: stores, a card, and the three kinds of destinations."""

from pathlib import Path

import pytest

from tests.makers.destinations import Destination, hub_destination, location_destination
from tests.makers.synthetic import write_synthetic_store

README = b"---\nlicense: cc0-1.0\n---\n# Latents\n"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 images in as many shards; not to change."""
    folder = tmp_path_factory.mktemp("made")
    write_synthetic_store(folder / "store.zarr", samples=4, shard_bytes=1 << 12)
    return folder / "store.zarr"


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """A card, as `latentset card` writes it."""
    folder = tmp_path / "card"
    (folder / "figures").mkdir(parents=True)
    (folder / "README.md").write_bytes(README)
    (folder / "croissant.json").write_text("{}")
    (folder / "figures" / "rate.png").write_bytes(b"\x89PNG")
    return folder


@pytest.fixture(params=["folder", "s3", "hub"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Destination:
    """Each kind of destination, empty."""
    match request.param:
        case "folder":
            return location_destination(tmp_path / "published")
        case "s3":
            return location_destination(request.getfixturevalue("s3"))
        case _:
            return hub_destination(request.getfixturevalue("hub"), "org/set")


@pytest.fixture(scope="session")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 images of two sizes and two classes, the first one failed, in several shards."""
    return write_synthetic_store(
        tmp_path_factory.mktemp("latents") / "STORE",
        samples=12,
        sizes=((64, 64), (100, 50)),
        failed=(0,),
        shard_bytes=1 << 10,
    )
