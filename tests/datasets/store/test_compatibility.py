"""Stores that earlier versions wrote are read for ever (tests/data/README.md)."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from latentset.datasets.storage.location import Folder
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.convert import compare, convert
from latentset.datasets.store.verify import verify

DATA = Path(__file__).parents[2] / "data"

FINGERPRINTS = {
    "store-0.1.zarr": "1a4101944cfc1ebc66817ebbfb11f53d800f2ab518c7293b6976396b1dac0e4c",
    "store-1.0.zarr": "826377c1e2840f2f90657d44f7de66fa3bd29bcb65cc5e5858e570f9bd7228d6",
    "store-1.0.h5": "826377c1e2840f2f90657d44f7de66fa3bd29bcb65cc5e5858e570f9bd7228d6",
    "store-1.2.zarr": "2de4e4d4cec06c9e3bb156a37f45f7b68db577959bcf525f64907247705b7ac8",
    "store-1.2.h5": "2de4e4d4cec06c9e3bb156a37f45f7b68db577959bcf525f64907247705b7ac8",
}

SHA256 = {
    "y_hat": "2a3ecc4a896d7204abf025e7d5c4517f4b765900eaf39b9dbf9f72c60ffb520a",
    "scale_index": "8166020052419edcad3eac327b4b11210e1071a2954bd17b7a37575c27075b90",
    "z_hat": "0f34cdc9c801874793c8c01fce14880fa535bb52721aeb68fff6b0f813773970",
    "sigma_hat": "e91a945d1a12dec46be31c06174da80d57028248f5d43ac2206fd9e5e69b0da3",
}
"""Of all values, little-endian, rows x channels; taken with LatentSet 0.1.0."""


@pytest.fixture(params=FINGERPRINTS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(name: str) -> Store:
    return open_store(DATA / name)


def test_header_and_samples(name: str, store: Store) -> None:
    assert store.header.format_version == name.removeprefix("store-")[:3]
    assert store.fingerprint == FINGERPRINTS[name]
    assert store.header.codec is not None
    assert store.header.codec.channels == 6
    assert store.header.codec.z_channels == 3
    since_1_2 = (store.header.provenance.cpu_isa, store.header.codec.h_s_exact_to)
    assert since_1_2 == (("avx2", 127) if "1.2" in name else (None, None))
    assert store.header.source.classes == ("even", "odd")
    assert store.header.layout.shards == 11
    assert store.samples.num_rows == 12
    assert store.samples.slice(7, 1).to_pylist() == [
        {
            "id": "odd/000007",
            "path": "odd/000007.png",
            "label": 1,
            "split": "val",
            "height": 100,
            "width": 50,
            "latent_height": 7,
            "latent_width": 4,
            "first_row": 168,
            "z_first_row": 12,
            "shard": 6,
            "rate_bpp": 0.26,
            "source_bytes": 1007,
            "source_sha256": "7902699be42c8a8e46fbbb4501726517e86b22c56a189f7625a6da49081b2451",
            "status": "ok",
            "reason": "",
        }
    ]
    (failed,) = store.samples.slice(3, 1).to_pylist()
    assert failed["status"] == "truncated"
    assert failed["rate_bpp"] is None


def test_sample_7(store: Store) -> None:
    sample = store.read_sample(7)
    assert sample["y_hat"].shape == (7, 4, 6)
    assert sample["y_hat"][0, :2].tolist() == [[0, 0, 0, -1, 2, 4], [0, 0, 0, 0, -3, 0]]
    assert sample["scale_index"][6, :2].tolist() == [[0, 0, 6, 19, 30, 33], [0, 0, 4, 21, 31, 33]]
    assert sample["z_hat"].tolist() == [[[-3, 2, 2]], [[2, -2, 2]]]
    # 0.11 * (256 / 0.11) ** (19 / 63)
    assert sample["sigma_hat"][6, 0, 3] == pytest.approx(1.1397, abs=1e-4)


def test_every_value(store: Store) -> None:
    for array, expected in SHA256.items():
        values = np.ascontiguousarray(store.array(array)[:])  # type: ignore[arg-type]
        content = values.astype(values.dtype.newbyteorder("<")).tobytes()
        assert hashlib.sha256(content).hexdigest() == expected


def test_it_is_sound(name: str) -> None:
    findings = verify(DATA / name)
    assert findings.problems == []
    assert len(findings.notes) == (name == "store-0.1.zarr")


@pytest.mark.parametrize("target", ["converted.h5", "converted.zarr"])
def test_it_can_be_converted(target: str, store: Store, tmp_path: Path) -> None:
    format = "hdf5" if target.endswith("h5") else "zarr"
    written = convert(store, Folder(tmp_path / target), format)  # type: ignore[arg-type]
    assert compare(store, written) == []
    assert written.header.format_version == ("1.2" if "1.2" in store.location.name else "1.0")
    assert written.fingerprint == store.fingerprint


def test_the_data_stay_small() -> None:
    files = [path for path in DATA.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 200_000


@pytest.fixture(params=["pixels-1.1.zarr", "pixels-1.1.h5"])
def pixels(request: pytest.FixtureRequest) -> Path:
    return DATA / str(request.param)


def test_pixels(pixels: Path) -> None:
    store = open_store(pixels)
    assert store.header.format_version == "1.1"
    assert store.fingerprint == "971d15ea3f2a06b13086e4512907326f02462a7c6501449dc216555168dec029"
    assert store.header.layout.shards == 5
    assert store.header.pixels is not None
    assert store.header.pixels.kind == "decoded"
    row = store.samples.slice(4, 1).to_pylist()[0]
    assert (row["id"], row["latent_height"], row["latent_width"]) == ("even/000004", 20, 30)
    assert (row["first_row"], row["z_first_row"], row["shard"]) == (1800, -1, 3)
    assert (row["psnr_db"], row["ms_ssim"]) == (30.0, None)
    image = store.read_sample(4)["pixels"]
    assert image.shape == (20, 30, 3)
    assert image[0, :2].tolist() == [[41, 37, 34], [33, 24, 27]]
    assert image[19, 29].tolist() == [21, 31, 24]
    values = np.ascontiguousarray(store.array("pixels")[:])
    digest = "50c739a9acb5cfbececda745c3aa9c7632d4f2963ebe8745c084c80e8e90262d"
    assert hashlib.sha256(values.tobytes()).hexdigest() == digest
    assert verify(pixels).problems == []


def test_pixels_can_be_converted(pixels: Path, tmp_path: Path) -> None:
    store = open_store(pixels)
    format = "hdf5" if pixels.suffix == ".zarr" else "zarr"
    written = convert(store, Folder(tmp_path / "converted"), format)  # type: ignore[arg-type]
    assert compare(store, written) == []
    assert written.header == store.header
