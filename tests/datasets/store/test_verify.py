"""`latentset verify`: everything that can be wrong is told, and nothing else is."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentset.datasets.storage.location import Folder, open_location
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.convert import convert
from latentset.datasets.store.hdf5.writer import encode_shard, write_hdf5
from latentset.datasets.store.header import ArrayName
from latentset.datasets.store.manifest import ShardSummary
from latentset.datasets.store.verify import verify
from latentset.datasets.store.zarr.writer import shard_objects
from tests.makers.synthetic import write_synthetic_store

FAILED = 3


def problems(path: Path) -> list[str]:
    return verify(path).problems


def test_what_a_sound_store_says(made: Path) -> None:
    findings = verify(made)
    assert findings.problems == []
    assert findings.notes == []
    files = [path for path in made.rglob("*") if path.is_file()]
    assert findings.objects == len(files)
    assert findings.bytes == sum(path.stat().st_size for path in files)
    assert findings.histogram() == [
        ("even", {"train": 5, "val": 1}),
        ("odd", {"train": 5, "val": 1}),
    ]


def test_a_card_is_no_part_of_the_store(store: Path) -> None:
    (store / "figures").mkdir()
    for name in ("README.md", "figures/rate.png", "figures/classes.png"):
        (store / name).touch()
    findings = verify(store)
    assert findings.outcome == "sound"
    assert findings.notes == [
        "README.md, figures: of the store's card, which manifest.json does not cover"
    ]
    (store / "README").touch()
    assert problems(store) == ["README is not listed in manifest.json"]


def test_progress_is_told(made: Path) -> None:
    told: list[tuple[str, int, int]] = []
    verify(made, lambda *what: told.append(what))
    shards = open_store(made).header.layout.shards
    assert told == [("checking", done, shards) for done in range(shards + 1)]


def test_all_problems_are_told(store: Path) -> None:
    (store / "z_hat/c/2/0").unlink()
    (store / "y_hat/c/1/0").write_bytes((store / "y_hat/c/1/0").read_bytes()[:-1])
    content = bytearray((store / "scale_index/c/4/0").read_bytes())
    content[30] ^= 64
    (store / "scale_index/c/4/0").write_bytes(bytes(content))
    (store / "y_hat/c/99").mkdir()
    (store / "y_hat/c/99/0").write_bytes(b"?")
    (store / ".samples.parquet.partial-00").write_bytes(b"")
    found = problems(store)
    first = open_store_rows(store)
    assert sorted(found) == sorted(
        [
            "y_hat/c/99/0 is not listed in manifest.json",
            ".samples.parquet.partial-00 is not listed in manifest.json (left behind by a writer "
            "that was killed)",
            "z_hat/c/2/0 is missing",
            f"y_hat/c/1/0: expected {first + 1} bytes, got {first} bytes",
            "scale_index/c/4/0 differs from its sha256 in manifest.json",
            next(line for line in found if line.startswith("scale_index: rows 112 to 139 (")),
        ]
    )


def open_store_rows(store: Path) -> int:
    return (store / "y_hat/c/1/0").stat().st_size


def test_missing_and_torn_manifests(store: Path) -> None:
    content = (store / "manifest.json").read_bytes()
    (store / "manifest.json").write_bytes(content[:-20])
    (problem,) = problems(store)
    assert problem.startswith("manifest.json is not valid")
    (store / "manifest.json").unlink()
    findings = verify(store)
    assert (findings.problems, findings.is_complete) == ([], False)
    (obstacle,) = findings.obstacles
    assert obstacle.startswith("manifest.json is missing: the job that makes the store was inter")
    assert "run the same latentset encode again" in obstacle


def test_a_header_that_cannot_be_read_hides_nothing_else(store: Path) -> None:
    (store / "zarr.json").write_bytes(b"{" + (store / "zarr.json").read_bytes()[1:-1] + b"!")
    (store / "y_hat/c/0/0").unlink()
    found = problems(store)
    assert any(line.startswith("zarr.json cannot be read") or "zarr.json" in line for line in found)
    assert "zarr.json differs from its sha256 in manifest.json" in found
    assert "y_hat/c/0/0 is missing" in found


def test_nothing_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty.h5").write_bytes(b"")
    for name in ("nothing", "empty.h5"):
        findings = verify(tmp_path / name)
        assert (findings.problems, findings.outcome) == ([], "not checked")
        (obstacle,) = findings.obstacles
        assert "is not a LatentSet store" in obstacle
        assert "look at the spelling" in obstacle


def test_a_later_version_is_not_called_damage(store: Path) -> None:
    for name in ("zarr.json", "manifest.json"):
        text = (store / name).read_text()
        (store / name).write_text(
            re.sub(r'"format_version": ?"1.0"', '"format_version": "9.0"', text)
        )
    findings = verify(store)
    assert findings.problems == []
    (obstacle,) = findings.obstacles
    assert (
        "expected 0.1 or 1.0 or 1.1 or 1.2, got '9.0'; read it with a LatentSet that knows"
        in obstacle
    )


def test_a_first_line_that_was_altered_is_damage(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    convert(open_store(store), Folder(path), "hdf5")
    path.write_bytes(b"[" + path.read_bytes()[1:])
    (problem,) = problems(path)
    assert "its first 512 bytes were altered" in problem
    assert "etch it again" not in problem


# Values: written with digests that agree, so that only the rules can tell.

Change = Callable[[dict[ArrayName, Any]], object]


def put(name: ArrayName, row: int, value: int) -> Change:
    def change(rows: dict[ArrayName, Any]) -> None:
        rows[name] = rows[name].copy()
        rows[name][row, 2] = value

    return change


@pytest.mark.parametrize(
    ("shard", "change", "message"),
    [
        # 28 rows a shard: sample 2k has 16 of them, sample 2k + 1 all.
        (0, put("y_hat", 27, 5), "y_hat, shard 0: expected zeros in rows that belong to no sample"),
        (0, put("scale_index", 16, 5), "scale_index, shard 0: expected zeros in rows"),
        (2, put("scale_index", 0, 64), "scale_index, shard 2: expected less than 64, .* up to 64"),
        (1, put("sigma_hat", 3, 77), r"sigma_hat, shard 1: expected scale_table\[scale_index\]"),
        (0, put("z_hat", 1, 1), "z_hat, shard 0: expected zeros in rows"),
    ],
)
@pytest.mark.parametrize("format", ["zarr", "hdf5"])
def test_values_against_the_rules(
    format: str,
    shard: int,
    change: Change,
    message: str,
    store: Path,
    sign: Callable[[Path], None],
) -> None:
    opened = open_store(store)
    if format == "zarr":
        rows = opened.read_shard(shard)
        change(rows)
        for path, content in shard_objects(opened.header, shard, rows).items():
            (store / path).write_bytes(content)
        sign(store)
        found = problems(store)
    else:
        found = problems(rewrite(opened, store.with_name("s.h5"), shard, change))
    assert len(found) >= 1
    assert any(re.match(message, line) for line in found), found


def rewrite(
    store: Store,
    path: Path,
    shard: int | None = None,
    change: Change | None = None,
    samples: pa.Table | None = None,
    shards: tuple[ShardSummary, ...] | None = None,
) -> Path:
    """Write a store as HDF5 whose digests agree, with something altered."""
    assert store.manifest is not None
    parts = []
    for index in range(store.header.layout.shards):
        rows = store.read_shard(index)
        if index == shard and change is not None:
            change(rows)
        parts.append(encode_shard(store.header, rows))
    write_hdf5(
        path,
        store.header,
        parts,
        fingerprint=store.fingerprint,
        samples=store.samples if samples is None else samples,
        summaries=store.manifest.shards if shards is None else shards,
    )
    return path


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("id", "even/000000", "ids are not unique"),
        ("split", "holdout", "split is none of train, val, test, empty: odd/000001"),
        ("rate_bpp", None, "rate_bpp is missing, negative or infinite: odd/000001"),
        ("rate_bpp", -1.0, "rate_bpp is missing, negative or infinite: odd/000001"),
        ("source_sha256", "x", "source_sha256 is no digest: odd/000001"),
        ("latent_height", 4, "latent size does not follow from the image's: odd/000001"),
        ("width", 0, "latent size does not follow from the image's: odd/000001"),
        (
            "status",
            "failed",
            "index=1 samples=1 ok=1 failed=0, as in the manifest, got .*failed=1",
        ),
        ("status", "failed", "expected total=12 ok=11 failed=1, as in the manifest, .* ok=10"),
    ],
)
def test_the_samples_table_against_the_rules(
    column: str, value: object, message: str, store: Path, sign: Callable[[Path], None]
) -> None:
    table = pq.read_table(store / "samples.parquet")
    rows = table.to_pylist()
    rows[1][column] = value
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), store / "samples.parquet")
    sign(store)
    found = problems(store)
    assert any(re.search(message, line) for line in found), found


@pytest.mark.parametrize("column", ["first_row", "z_first_row"])
def test_rows_that_two_samples_share(
    column: str, tmp_path: Path, sign: Callable[[Path], None]
) -> None:
    store = write_synthetic_store(tmp_path / "s.zarr", samples=40)  # three samples a shard
    table = pq.read_table(store / "samples.parquet")
    rows = table.to_pylist()
    assert rows[1]["shard"] == rows[2]["shard"]
    rows[2][column] = rows[1][column]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), store / "samples.parquet")
    sign(store)
    found = problems(store)
    line = f"samples.parquet: {column}: rows shared with another sample: even/000002"
    assert line in found
    # The rows that it had before belong to nobody now.
    assert any("expected zeros in rows that belong to no sample" in line for line in found)


def test_a_resize_rule_that_nobody_knows(store: Path, sign: Callable[[Path], None]) -> None:
    text = (store / "zarr.json").read_text()
    (store / "zarr.json").write_text(text.replace('"resize": "none"', '"resize": "melt:7"'))
    sign(store)
    (problem,) = problems(store)
    assert problem.startswith("header: resize: ")
    assert "melt:7" in problem


def test_rows_of_a_sample_that_failed(store: Path, sign: Callable[[Path], None]) -> None:
    table = pq.read_table(store / "samples.parquet")
    rows = table.to_pylist()
    rows[FAILED].update(first_row=0, rate_bpp=0.5, latent_width=4)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), store / "samples.parquet")
    sign(store)
    assert problems(store) == [
        "samples.parquet: rate_bpp of a sample without latents: odd/000003",
        "samples.parquet: latent_width of a sample without latents is not 0: odd/000003",
        "samples.parquet: first_row of a sample without latents is not -1: odd/000003",
    ]


def test_an_hdf5_file_with_more_in_it(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    convert(open_store(store), Folder(path), "hdf5")
    assert verify(path).problems == []
    with h5py.File(path, "r+") as opened:
        opened["stowaway"] = np.zeros(3)
        opened["samples/stowaway"] = np.zeros(3)
        opened.attrs["stowaway"] = "x"
    content = path.read_bytes()
    line = json.loads(content[:512].split(b"\n")[0])
    line["bytes"] = len(content)
    path.write_bytes((json.dumps(line) + "\n").encode().ljust(512, b"\0") + content[512:])
    assert problems(path) == [
        "the file differs from the sha256 in its first 512 bytes",
        "attribute stowaway is not listed in the manifest",
        "samples/stowaway is not listed in the manifest",
        "stowaway is not listed in the manifest",
    ]


def test_all_problems_of_an_hdf5_file_are_told(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    convert(open_store(store), Folder(path), "hdf5")
    with h5py.File(path) as opened:
        locations = [
            opened[name].id.get_chunk_info(k).byte_offset
            for name, k in (("y_hat", 2), ("z_hat", 5), ("samples/id", 0))
        ]
    content = bytearray(path.read_bytes())
    for location in locations:
        content[location + 3] ^= 8
    path.write_bytes(bytes(content))
    found = [line.split(": ")[0] for line in problems(path)]
    assert sorted(found) == [
        "samples/id",
        "samples/id differs from its sha256 in the manifest",
        "the file differs from the sha256 in its first 512 bytes",
        "y_hat",
        "y_hat differs from its sha256 in the manifest",
        "z_hat",
        "z_hat differs from its sha256 in the manifest",
    ]


def test_a_store_far_away(
    made: Path, store: Path, s3: str, serve: Callable[..., str], tmp_path: Path
) -> None:
    far = open_location(f"{s3}/store.zarr")
    for path, content in ((p, p.read_bytes()) for p in made.rglob("*") if p.is_file()):
        far.write(path.relative_to(made).as_posix(), content)
    far.write("stray", b"?")
    far.remove("y_hat/c/2/0")
    assert sorted(verify(str(far)).problems) == [
        "stray is not listed in manifest.json",
        "y_hat/c/2/0 is missing",
    ]
    web = f"{serve(store.parent)}/store.zarr"
    sound = verify(web)
    assert sound.problems == []
    assert sound.notes == ["this location cannot list what it holds: extra objects are not found"]
    (store / "scale_index/c/1/0").unlink()
    (store / "z_hat/c/1/0").write_bytes(b"")
    found = sorted(verify(web).problems)
    assert found[0] == "scale_index/c/1/0 is missing"
    assert found[1].startswith("z_hat/c/1/0: expected ")
