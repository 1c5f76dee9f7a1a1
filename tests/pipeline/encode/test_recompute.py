"""`latentset verify --recompute`: samples encoded again and compared symbol by symbol."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from latentset.cli.main import app
from latentset.cli.verify import _conclude
from latentset.datasets.errors import CodecError
from latentset.datasets.sources import Source, open_source
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.findings import Findings
from latentset.datasets.store.hdf5.writer import encode_shard, write_hdf5
from latentset.datasets.store.header import ArrayName
from latentset.pipeline.encode.encode import EncodeOptions, encode
from latentset.pipeline.jobs.plan import find_root
from latentset.pipeline.jobs.tasks import JobResult
from latentset.pipeline.recompute import Recomputed, prepare, recompute

Run = Callable[..., JobResult]


def silence(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def again(standin: Any) -> Callable[..., Recomputed]:
    def run_it(store: Path, source: Source, count: int = 100, **options: Any) -> Recomputed:
        options = {"codec": None, "seed": 0, "engine": standin.ENGINE} | options
        prepared = prepare(open_store(store), source.folder, count=count, **options)
        return recompute(prepared, silence)

    return run_it


@pytest.mark.parametrize("name", ["store.zarr", "store.h5"])
@pytest.mark.parametrize("resize", ["none", "short:50"])
def test_a_store_is_what_its_codec_gives(
    name: str,
    resize: str,
    run: Run,
    mixed: Source,
    again: Callable[..., Recomputed],
    tmp_path: Path,
) -> None:
    from latentset.datasets.sources.resize import ResizeRule

    run(mixed, tmp_path / name, resize=ResizeRule.parse(resize))
    result = again(tmp_path / name, mixed)
    assert result.problems == []
    assert result.software == []
    assert (result.samples, result.differing) == (40, 0)
    if resize == "none":
        # Of 40 images 14 have 4x4 positions, 13 have 3x7 and 13 have 9x5; six channels of
        # y_hat and scale_index; z_hat has 1, 1x2 and 3x2 positions of two channels.
        positions = 14 * 16 + 13 * 21 + 13 * 45
        assert result.symbols == 2 * 6 * positions + 2 * (14 * 1 + 13 * 2 + 13 * 6)


def test_some_are_chosen_by_the_seed(
    run: Run, mixed: Source, again: Callable[..., Recomputed], tmp_path: Path
) -> None:
    run(mixed, tmp_path / "store")
    for path in (mixed.folder / "a").iterdir():
        Image.new("RGB", (64, 64)).save(path)  # 20 of 40 are not what they were

    def changed(seed: int) -> list[str]:
        result = again(tmp_path / "store", mixed, count=10, seed=seed)
        assert result.samples + len(result.not_compared) == 10
        assert result.problems == []
        return result.not_compared

    assert changed(1) == changed(1) != changed(2)
    assert 0 < len(changed(1)) < 10
    assert all("not the image that was encoded" in line for line in changed(1))


def test_one_symbol_is_found(
    run: Run, mixed: Source, again: Callable[..., Recomputed], tmp_path: Path
) -> None:
    store = run(mixed, tmp_path / "store.h5").store
    spoil(store, tmp_path / "spoiled.h5", 5, {"y_hat": 1, "z_hat": -1})
    result = again(tmp_path / "spoiled.h5", mixed)
    assert result.differing == 2
    name = store.samples["id"][5].as_py()
    assert len(result.problems) == 1
    assert result.explained == []
    y_hat = store.read_sample(5)["y_hat"]
    value = y_hat[0, 0, 3]
    assert result.problems[0].startswith(f"sample 5 ({name}) encoded again: z_hat: 1 of ")
    assert result.problems[0].endswith(
        f"; y_hat: 1 of {y_hat.size} symbols differ: {value} for {value + 1} at (0, 0, 3)"
    )


@pytest.mark.parametrize(
    ("spoilt", "rounding"),
    [
        ({"y_hat": 1, "z_hat": -1}, True),
        ({"y_hat": 2, "z_hat": -1}, False),
        # Scales follow from all of z_hat around them.
        ({"scale_index": 32, "z_hat": -1}, True),
        ({"scale_index": 32}, False),
    ],
)
def test_a_difference_that_other_software_explains(
    spoilt: dict[ArrayName, int],
    rounding: bool,
    run: Run,
    mixed: Source,
    again: Callable[..., Recomputed],
    standin: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = run(mixed, tmp_path / "store.h5").store
    spoil(store, tmp_path / "spoiled.h5", 5, spoilt)
    monkeypatch.setitem(standin.environment, "cpu_isa", "avx2")
    result = again(tmp_path / "spoiled.h5", mixed)
    assert (len(result.explained), len(result.problems)) == (rounding, not rounding)
    assert result.software == ["not as when the store was made: cpu_isa: native then, avx2 now"]
    _, verdict, status = _conclude(Findings("store"), result)
    assert status == (2 if rounding else 1)
    assert ("which is no damage" in verdict) is rounding
    assert ("It is more than rounding" in verdict) is not rounding


def spoil(store: Store, path: Path, index: int, spoilt: dict[ArrayName, int]) -> None:
    """Write a store again with one number of some arrays of a sample altered by so much."""
    assert store.manifest is not None
    layout, row = store.header.layout, store.samples.slice(index, 1).to_pylist()[0]
    parts = []
    for k in range(layout.shards):
        rows = {name: values.copy() for name, values in store.read_shard(k).items()}
        if k == row["shard"]:
            first = row["first_row"] - k * layout.shard_rows
            z_first = row["z_first_row"] - k * layout.z_shard_rows
            for name, step in spoilt.items():
                location = (z_first, 1) if name == "z_hat" else (first, 3)
                altered = int(rows[name][location]) + step
                rows[name][location] = altered % 64 if name == "scale_index" else altered
        parts.append(encode_shard(store.header, rows))
    write_hdf5(
        path,
        store.header,
        parts,
        fingerprint=store.fingerprint,
        samples=store.samples,
        summaries=store.manifest.shards,
    )


def test_an_image_that_is_gone(
    run: Run, mixed: Source, again: Callable[..., Recomputed], tmp_path: Path
) -> None:
    run(mixed, tmp_path / "store")
    (mixed.folder / "a" / "000.png").unlink()
    result = again(tmp_path / "store", mixed)
    assert result.samples == 39
    (line,) = result.not_compared
    assert line.startswith("sample 0 (a/000.png) cannot be compared: a/000.png: ")
    assert result.problems == []


def test_latents_that_cannot_be_read(
    run: Run, mixed: Source, again: Callable[..., Recomputed], tmp_path: Path
) -> None:
    store = run(mixed, tmp_path / "store").store
    shard = tmp_path / "store" / "y_hat" / "c" / str(store.samples["shard"][0]) / "0"
    shard.write_bytes(bytes([shard.read_bytes()[0] ^ 255]) + shard.read_bytes()[1:])
    result = again(tmp_path / "store", mixed)
    assert result.not_compared
    assert all("y_hat, rows from" in line for line in result.not_compared)
    assert result.samples + len(result.not_compared) == 40


def test_failed_samples_are_left_out(
    run: Run, mixed: Source, again: Callable[..., Recomputed], tmp_path: Path
) -> None:
    (mixed.folder / "a" / "000.png").write_bytes(b"no image")
    run(mixed, tmp_path / "store")
    result = again(tmp_path / "store", mixed)
    assert (result.samples, result.problems) == (39, [])


def test_another_codec_is_refused(
    run: Run, uniform: Source, again: Callable[..., Recomputed], tmp_path: Path
) -> None:
    run(uniform, tmp_path / "store")
    with pytest.raises(CodecError, match=r"was encoded by standin with sha256 .*but standin:other"):
        again(tmp_path / "store", uniform, codec="standin:other")


def test_other_software_is_said(
    run: Run,
    uniform: Source,
    again: Callable[..., Recomputed],
    standin: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(uniform, tmp_path / "store")
    monkeypatch.setitem(standin.environment, "tensorflow", "of tomorrow")
    result = again(tmp_path / "store", uniform, count=1)
    assert result.software == [
        "not as when the store was made: tensorflow: stand-in then, of tomorrow now"
    ]
    assert ("note", result.software[0]) in result.rows()


@pytest.mark.usefixtures("wide_terminal")
def test_the_command_with_a_real_codec(scheduler: str, tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    random = np.random.default_rng(0)
    for k in range(3):
        pixels = random.integers(0, 256, (64, 48 + 16 * k, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / "a" / f"{k}.png")
    source = open_source(tmp_path / "images")
    encode(
        source, tmp_path / "store", "demo-hyperprior-msssim-4", EncodeOptions(scheduler=scheduler)
    )
    command = ["verify", str(tmp_path / "store"), "--recompute", "2", "--source"]
    done = CliRunner().invoke(app, [*command, str(source.folder)])
    assert done.exit_code == 0, done.output
    assert "2 samples: 0 of" in done.output
    done = CliRunner().invoke(app, command[:-1])
    assert done.exit_code == 0, done.output
    assert f"images: {source.folder}, which store.job names" in done.output
    assert "2 samples: 0 of" in done.output
    for path in (source.folder / "a").iterdir():
        path.unlink()
    done = CliRunner().invoke(app, [*command, str(source.folder)])
    assert done.exit_code == 2
    assert "is not the root of the images" in done.output


def test_the_job_knows_where_the_images_are(
    run: Run, mixed: Source, tmp_path: Path, serve: Callable[[Path], str]
) -> None:
    store, job = tmp_path / "store", tmp_path / "store.job"
    run(mixed, store)
    assert find_root(open_store(store)) == str(mixed.root)
    assert find_root(open_store(f"{serve(tmp_path)}/store")) is None  # it may name any folder here
    (plan,) = job.glob("*/plan.json")
    document = json.loads(plan.read_text())
    del document["root"]
    plan.write_text(json.dumps(document))  # of an earlier version
    assert find_root(open_store(store)) is None
    plan.write_text("no plan")
    assert find_root(open_store(store)) is None
    shutil.rmtree(job)
    assert find_root(open_store(store)) is None
    done = CliRunner().invoke(app, ["verify", str(store), "--recompute", "1"])
    assert done.exit_code == 2
    text = " ".join(done.output.replace("│", " ").split())
    assert "expected the root of the images" in text
