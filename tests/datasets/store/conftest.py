"""What tests of stores share."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.makers.synthetic import write_synthetic_store


def _write_manifest(store: Path, manifest: dict[str, Any]) -> None:
    """By the words of docs/store-spec.md, 6: the digest of the bytes with its digits as zeros."""
    text = json.dumps({**manifest, "sha256": "0" * 64})
    digest = hashlib.sha256(text.encode()).hexdigest()
    (store / "manifest.json").write_text(json.dumps({**manifest, "sha256": digest}))


@pytest.fixture
def write_manifest() -> Callable[[Path, dict[str, Any]], None]:
    """Write a manifest that agrees with itself, as a forger would."""
    return _write_manifest


@pytest.fixture
def read_manifest() -> Callable[[Path], dict[str, Any]]:
    """Read a manifest, to change it."""

    def read(store: Path) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads((store / "manifest.json").read_text())
        return manifest

    return read


@pytest.fixture
def sign() -> Callable[[Path], None]:
    """Make the manifest of a store agree with its objects, as a forger would."""

    def sign_it(store: Path) -> None:
        manifest = json.loads((store / "manifest.json").read_text())
        for item in manifest["objects"]:
            content = (store / item["path"]).read_bytes()
            item["bytes"], item["sha256"] = len(content), hashlib.sha256(content).hexdigest()
        _write_manifest(store, manifest)

    return sign_it


@pytest.fixture
def alter_header(
    sign: Callable[[Path], None],
) -> Callable[[Path, Callable[[dict[str, Any]], object]], None]:
    """Change the header of a store in place, and sign the store."""

    def alter(store: Path, change: Callable[[dict[str, Any]], object]) -> None:
        group = json.loads((store / "zarr.json").read_text())
        change(group["attributes"]["latentset"])
        (store / "zarr.json").write_text(json.dumps(group))
        sign(store)

    return alter


@pytest.fixture
def alter_table(
    sign: Callable[[Path], None],
) -> Callable[[Path, Callable[[dict[str, list[Any]]], object]], None]:
    """Change the columns of a store's samples table in place, and sign the store."""

    def alter(store: Path, change: Callable[[dict[str, list[Any]]], object]) -> None:
        table = pq.read_table(store / "samples.parquet")
        columns = table.to_pydict()
        change(columns)
        changed = pa.table(columns, schema=table.schema)
        pq.write_table(changed, store / "samples.parquet", store_schema=False)
        sign(store)

    return alter


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 images of 64x64 and 100x50 pixels, number 3 failed, in several shards; not to change."""
    return write_synthetic_store(
        tmp_path_factory.mktemp("made") / "store.zarr",
        samples=12,
        sizes=((64, 64), (100, 50)),
        failed=(3,),
        sigma_hat=True,
        shard_bytes=1 << 10,
    )


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to damage."""
    return Path(shutil.copytree(made, tmp_path / "store.zarr"))
