"""Readers that know nothing of LatentSet get sample 7 right, by docs/store-spec.md alone.

The programs of the specification's sections 7 and 8 are run as they are printed there, each in a
fresh interpreter that cannot import latentset.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from latentset.datasets.storage.location import Folder
from latentset.datasets.store import open_store
from latentset.datasets.store.convert import convert
from tests.makers.synthetic import write_synthetic_store

SPECIFICATION = Path(__file__).parents[3] / "docs" / "store-spec.md"

GUARD = """
import sys
class Ban:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "latentset":
            raise RuntimeError("banned import: " + name)
sys.meta_path.insert(0, Ban())
"""

SHOW = """
import json as _json
print(_json.dumps({"y_hat": y_hat.tolist(), "index": index.tolist(), "sigma": sigma_hat.tolist()}))
"""

PLAIN_TENSORSTORE = """
import numpy as np, tensorstore, pyarrow.parquet as pq, json, pathlib
sample = pq.read_table("STORE/samples.parquet").slice(7, 1).to_pylist()[0]
h, w, first = sample["latent_height"], sample["latent_width"], sample["first_row"]
codec = json.loads(pathlib.Path("STORE/zarr.json").read_text())["attributes"]["latentset"]["codec"]
def read(name):
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": "STORE/" + name}}
    return tensorstore.open(spec).result()[first : first + h * w].read().result().reshape(h, w, -1)
y_hat, index = read("y_hat"), read("scale_index")
sigma_hat = np.asarray(codec["scale_table"], "float32")[index]
"""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with STORE and STORE.h5. Sample 7 has a grid of 7x4 positions."""
    folder = tmp_path_factory.mktemp("plain")
    made = write_synthetic_store(
        folder / "STORE", samples=12, sizes=((64, 64), (100, 50)), failed=(3,)
    )
    convert(open_store(made), Folder(folder / "STORE.h5"), "hdf5")
    return folder


def program(section: int) -> str:
    """The Python program that a section of the specification prints."""
    text = SPECIFICATION.read_text()
    part = re.split(r"^## ", text, flags=re.MULTILINE)[section]
    assert part.startswith(f"{section}. ")
    (found,) = re.findall(r"^```python\n(.*?)^```", part, flags=re.MULTILINE | re.DOTALL)
    return str(found)


def run(text: str, folder: Path) -> dict[str, NDArray[Any]]:
    done = subprocess.run(
        [sys.executable, "-c", GUARD + text + SHOW],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name: np.array(values) for name, values in json.loads(done.stdout).items()}


@pytest.fixture(scope="module")
def expected(stores: Path) -> dict[str, NDArray[Any]]:
    """Sample 7 by this package's reader; its own values are checked elsewhere by literals."""
    opened = open_store(stores / "STORE")
    sample = opened.read_sample(7)
    assert sample["y_hat"].shape == (7, 4, 8)
    assert sample["y_hat"].any()
    return sample


def agree(found: dict[str, NDArray[Any]], expected: dict[str, NDArray[Any]]) -> None:
    np.testing.assert_array_equal(found["y_hat"], expected["y_hat"])
    np.testing.assert_allclose(found["sigma"], expected["sigma_hat"], rtol=1e-6)
    gray = expected["scale_index"] ^ (expected["scale_index"] >> 1)  # section 4.7
    np.testing.assert_array_equal(found["index"], gray)


def test_plain_zarr(stores: Path, expected: dict[str, NDArray[Any]]) -> None:
    agree(run(program(7), stores), expected)


def test_plain_tensorstore(stores: Path, expected: dict[str, NDArray[Any]]) -> None:
    pytest.importorskip("tensorstore", reason="of the train environment")
    agree(run(PLAIN_TENSORSTORE, stores), expected)


def test_plain_h5py(stores: Path, expected: dict[str, NDArray[Any]]) -> None:
    found = run(program(8), stores)
    channels_last = {name: np.moveaxis(values, 0, -1) for name, values in found.items()}
    agree(channels_last, expected)


def test_the_guard_can_fail(stores: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GUARD + "import latentset.datasets"], capture_output=True, text=True
    )
    assert "banned import: latentset" in done.stderr
