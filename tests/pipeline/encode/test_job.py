"""The whole job with a stand-in codec: what goes in comes out, whatever the settings."""

import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentset.datasets.errors import (
    CodecGraphError,
    ImageFailedError,
    JobError,
    SettingsChangedError,
    StoreError,
)
from latentset.datasets.sources import Source, open_source
from latentset.datasets.sources.images import read_image
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.storage.location import Folder
from latentset.datasets.store import open_store
from latentset.pipeline.encode import encode as module
from latentset.pipeline.encode.encode import EncodeOptions, encode
from latentset.pipeline.jobs.cluster import connect
from latentset.pipeline.jobs.options import JobOptions
from latentset.pipeline.jobs.plan import Plan
from latentset.pipeline.jobs.progress import ProgressView
from latentset.pipeline.jobs.shard import record_path
from latentset.pipeline.jobs.tasks import JobResult

Run = Callable[..., JobResult]
Content = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="module")
def finished_once(standin: Any, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store of the images of ``uniform``."""
    folder = tmp_path_factory.mktemp("finished")
    standin.write_images(folder / "uniform", ((64, 64),), 32)
    source = open_source(folder / "uniform")
    options = EncodeOptions(scheduler=scheduler, engine=standin.ENGINE)
    encode(source, folder / "store", "standin", options)
    return folder / "store"


@pytest.fixture
def finished(finished_once: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished_once, tmp_path / "finished"))


def broken(source: Source) -> Source:
    """Add images that cannot be encoded."""
    folder = source.folder / "a"
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no image")
    whole = (folder / "000.png").read_bytes()
    (folder / "torn.png").write_bytes(whole[: len(whole) * 2 // 3])
    Image.new("RGB", (1, 1)).save(folder / "tiny.png")
    return open_source(source.folder)


def check_against_codec(result: JobResult, source: Source, standin: Any, resize: str) -> None:
    """Compare every sample with what the codec gives for it alone."""
    codec, rule = standin.StandIn("standin"), ResizeRule.parse(resize)
    rows = result.store.samples.to_pylist()
    assert [r["id"] for r in rows] == source.samples["id"].to_pylist()
    for k, row in enumerate(rows):
        image = read_image(source.folder / row["path"])
        pixels = rule.apply(image)
        expected = codec.encode(pixels[None])
        sample = result.store.read_sample(k)
        for name in ("y_hat", "scale_index", "z_hat"):
            np.testing.assert_array_equal(sample[name], getattr(expected, name)[0])
        assert (row["height"], row["width"]) == image.shape[:2]
        bits = np.abs(expected.y_hat).sum()
        assert row["rate_bpp"] == pytest.approx(bits / (pixels.shape[0] * pixels.shape[1]))
        content = (source.folder / row["path"]).read_bytes()
        assert row["source_sha256"] == hashlib.sha256(content).hexdigest()
        assert row["source_bytes"] == len(content)
        assert (row["status"], row["reason"]) == ("ok", "")


@pytest.mark.parametrize("resize", ["none", "short:40", "exact:32x80"])
def test_every_sample_is_what_the_codec_gives(
    run: Run, mixed: Source, standin: Any, tmp_path: Path, resize: str
) -> None:
    result = run(mixed, tmp_path / "store", resize=ResizeRule.parse(resize))
    assert (result.encoded, result.reused, result.was_complete) == (40, 0, False)
    check_against_codec(result, mixed, standin, resize)
    header = result.store.header
    assert header.resize == resize
    assert header.source.classes == ("a", "b")
    assert header.provenance.onednn
    assert header.provenance.created == "2001-09-09T01:46:40Z"


def test_one_size_makes_one_chunk_a_sample(run: Run, uniform: Source, tmp_path: Path) -> None:
    result = run(uniform, tmp_path / "store")
    assert result.store.header.layout.chunk_rows == 16
    assert result.store.array("y_hat").chunks == (16, 6)


def test_the_bytes_depend_on_neither_batch_nor_workers(
    run: Run, mixed: Source, standin: Any, content: Content, tmp_path: Path
) -> None:
    run(mixed, tmp_path / "store")
    for name, options in (
        ("one", {"batch": 1}),
        ("three", {"batch": 3}),
        ("local-1", {"scheduler": None, "workers": 1}),
        ("local-4", {"scheduler": None, "workers": 4, "batch": 2}),
    ):
        run(mixed, tmp_path / name, **options)
        assert content(tmp_path / name) == content(tmp_path / "store")


def test_sigma_hat_is_stored_on_request(run: Run, mixed: Source, tmp_path: Path) -> None:
    store = run(mixed, tmp_path / "store", sigma_hat=True).store
    index = store.read_sample(3)["scale_index"]
    first = store.samples["first_row"][3].as_py()
    stored = np.asarray(store.array("sigma_hat")[first : first + index[..., 0].size])
    np.testing.assert_allclose(stored, np.exp(0.1 * index).reshape(stored.shape), rtol=1e-3)


def test_images_that_fail_are_recorded(
    run: Run, mixed: Source, row: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    source = broken(mixed)
    store = run(source, tmp_path / "store").store
    assert store.manifest is not None
    assert store.manifest.samples.model_dump() == {"total": 44, "ok": 40, "failed": 4}
    for name, status, size in (
        ("a/empty.jpg", "empty", (0, 0)),
        ("a/text.jpg", "not_an_image", (0, 0)),
        ("a/torn.png", "truncated", (64, 64)),
        ("a/tiny.png", "too_small", (0, 0)),
    ):
        found = row(store, name)
        assert found["status"] == status
        assert found["reason"]
        assert (found["height"], found["width"]) == size
        assert (found["latent_height"], found["latent_width"]) == (0, 0)
        assert (found["first_row"], found["z_first_row"]) == (-1, -1)
        assert found["rate_bpp"] is None
        content = (source.folder / name).read_bytes()
        expected = hashlib.sha256(content).hexdigest() if content else ""
        assert found["source_sha256"] == expected


def test_what_an_image_that_failed_would_have_had_stays_zero(
    run: Run, uniform: Source, tmp_path: Path
) -> None:
    path = uniform.folder / "a" / "000.png"
    path.write_bytes(path.read_bytes()[:-40])
    store = run(uniform, tmp_path / "store").store
    y_hat = np.asarray(store.array("y_hat")[:])
    assert not y_hat[:16].any()  # the first sample's rows
    assert y_hat[16:32].any()


@pytest.mark.parametrize("name", ["torn.png", "text.jpg"])
def test_on_error_fail_stops_and_names_the_image(
    run: Run, mixed: Source, tmp_path: Path, name: str
) -> None:
    source = broken(mixed)
    for path in (source.folder / "a").glob("[et]*"):
        if path.name != name:
            path.unlink()
    source = open_source(source.folder)
    with pytest.raises(ImageFailedError, match=f"a/{name}: .*--on-error record"):
        run(source, tmp_path / "store", on_error="fail")
    assert not (tmp_path / "store" / "manifest.json").exists()
    # One that is known from its header stops the job before the first task, one that turns out when
    # it is decoded stops its task.
    (job,) = (tmp_path / "store.job").glob("[0-9a-f]*")  # beside "lock"
    (row,) = (r for r in Plan(Folder(job)).table().to_pylist() if r["id"] == f"a/{name}")
    assert not (job / record_path(row["shard"])).exists()
    assert (tmp_path / "store" / "zarr.json").exists() == (name == "torn.png")
    # With the other setting the same store is finished, and then "fail" has nothing to do.
    assert run(source, tmp_path / "store").store.manifest is not None


def test_on_error_fail_also_holds_for_shards_of_an_earlier_run(
    run: Run, mixed: Source, tmp_path: Path
) -> None:
    path = mixed.folder / "a" / "000.png"
    path.write_bytes(path.read_bytes()[:-40])
    source = open_source(mixed.folder)
    run(source, tmp_path / "store")
    (tmp_path / "store" / "manifest.json").unlink()
    with pytest.raises(ImageFailedError):
        run(source, tmp_path / "store", on_error="fail")


def test_a_source_without_a_readable_image_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x" / "a").mkdir(parents=True)
    (tmp_path / "x" / "a" / "text.jpg").write_text("no image")
    with pytest.raises(JobError, match=r"none of the 1 images .*a/text.jpg: not_an_image"):
        run(open_source(tmp_path / "x"), tmp_path / "store")


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        ("standin:overflow", "'b/white.png': y_hat: expected values within the range of int16"),
        ("standin:index", "'b/white.png': scale_index: expected values within .* 0 to 63"),
    ],
)
def test_values_out_of_range_stop_the_job_and_name_the_sample(
    run: Run, mixed: Source, tmp_path: Path, codec: str, message: str
) -> None:
    Image.new("RGB", (64, 64), "white").save(mixed.folder / "b" / "white.png")
    with pytest.raises(JobError, match=message):
        run(open_source(mixed.folder), tmp_path / "store", codec=codec)


def test_a_complete_store_is_left_alone(
    run: Run, uniform: Source, finished: Path, content: Content
) -> None:
    before = content(finished)
    # No worker is asked for: at this address there is none.
    again = run(uniform, finished, scheduler="tcp://127.0.0.1:1")
    assert again.was_complete
    assert content(finished) == before


def test_a_complete_store_needs_neither_workers_nor_the_codec(
    run: Run,
    uniform: Source,
    finished: Path,
    standin: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(module, "connect", fail)
    engine = replace(standin.ENGINE, load=fail, environment=fail)
    for retry in (False, True):  # nothing has failed
        assert run(uniform, finished, engine=engine, retry_failed=retry).was_complete
    with pytest.raises(AssertionError):
        run(uniform, tmp_path / "new", engine=engine)


def test_local_workers_load_the_codec_once_each_and_one_checks_it(
    run: Run, mixed: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LATENTSET_STANDIN_LOADS", str(tmp_path / "loads"))
    run(mixed, tmp_path / "store", scheduler=None, workers=2)
    loads = [line.split() for line in (tmp_path / "loads").read_text().splitlines()]
    assert len({process for process, _ in loads} - {str(os.getpid())}) == 2
    assert sorted(checked for _, checked in loads) == ["False", "True"]


def test_a_codec_that_fails_its_self_check_leaves_nothing(
    run: Run, mixed: Source, tmp_path: Path
) -> None:
    # The other worker is ready long before.
    with pytest.raises(CodecGraphError, match="self-check"):
        run(mixed, tmp_path / "store", codec="standin:unsound", scheduler=None, workers=2)
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "store.job").exists()


def test_malloc_keeps_memory_in_local_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    with connect(JobOptions(workers=1)) as workers:
        names = ["MALLOC_TRIM_THRESHOLD_", "OMP_NUM_THREADS"]
        assert {value for _, value in workers.map(os.getenv, names)} == {None, "1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codec": "standin:other"}, r"codec\.sha256: \w+ before, \w+ now"),
        ({"resize": ResizeRule.parse("short:32")}, "resize: none before, short:32 now"),
        ({"sigma_hat": True}, r"arrays: .*'z_hat'\] before, .*'sigma_hat'\] now"),
        ({"shard_bytes": 1 << 20}, "target_shard_bytes: 33554432 before, 1048576 now"),
    ],
)
@pytest.mark.parametrize("complete", [True, False])
def test_changed_settings_are_refused_and_shown(
    run: Run,
    uniform: Source,
    finished: Path,
    content: Content,
    tmp_path: Path,
    options: dict[str, Any],
    message: str,
    complete: bool,
) -> None:
    shutil.copytree(finished, tmp_path / "store")
    if not complete:
        (tmp_path / "store" / "manifest.json").unlink()
    before = content(tmp_path / "store")
    with pytest.raises(SettingsChangedError, match=message):
        run(uniform, tmp_path / "store", **options)
    assert content(tmp_path / "store") == before


def test_a_changed_source_is_refused_and_shown(run: Run, uniform: Source, finished: Path) -> None:
    (uniform.folder / "a" / "000.png").unlink()
    with pytest.raises(SettingsChangedError, match=r"source\.samples: 32 before, 31 now"):
        run(open_source(uniform.folder), finished)


def test_other_software_is_refused(
    run: Run, uniform: Source, standin: Any, monkeypatch: pytest.MonkeyPatch, finished: Path
) -> None:
    monkeypatch.setitem(standin.environment, "onednn", "0")
    assert run(uniform, finished).was_complete  # nothing is computed
    (finished / "manifest.json").unlink()
    with pytest.raises(SettingsChangedError, match=r"software\.onednn: True before, False now"):
        run(uniform, finished)


def test_a_folder_that_is_no_store_is_refused(run: Run, mixed: Source, tmp_path: Path) -> None:
    target = tmp_path / "thesis"
    target.mkdir()
    (target / "chapter.txt").write_text("precious")
    with pytest.raises(StoreError, match=r"nothing was changed there\. Name another folder"):
        run(mixed, target)
    assert [p.name for p in target.iterdir()] == ["chapter.txt"]
    assert not (tmp_path / "thesis.job").exists()
    (tmp_path / "file").write_text("precious")
    with pytest.raises(StoreError, match=r"exists and is no store .* nothing was changed"):
        run(mixed, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"


def test_an_empty_folder_is_taken(run: Run, uniform: Source, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    run(uniform, tmp_path / "store")
    assert open_store(tmp_path / "store").manifest is not None


def test_a_scheduler_that_is_not_there_is_named(
    run: Run, mixed: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentset.pipeline.jobs.cluster.CONNECT_TIMEOUT_S", 1)
    with pytest.raises(JobError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"):
        run(mixed, tmp_path / "store", scheduler="tcp://127.0.0.1:1")


class Said(ProgressView):
    """Keeps what a job prints."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_enlarged_and_clipped_images_are_counted(
    run: Run, mixed: Source, tmp_path: Path, standin: Any
) -> None:
    random, folder = np.random.default_rng(0), mixed.folder / "a"
    deep = random.integers(1000, 60_000, (64, 64)).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray((deep // 256).astype(np.uint16)).save(folder / "labels.png")
    Image.fromarray(random.random((64, 64)).astype(np.float32)).save(folder / "float.tif")
    Image.new("RGB", (64, 64), "white").save(folder / "white.png")
    Image.new("RGB", (70, 16), "blue").save(folder / "low.png")
    view = Said()
    source, rule = open_source(mixed.folder), ResizeRule.parse("exact:40")
    result = run(source, tmp_path / "store", resize=rule, view=view)
    assert sorted(result.clipped) == ["a/deep.png", "a/float.tif"]
    (line,) = [line for line in view.lines if "enlarged" in line]
    assert line == (
        "1 of 45 images are smaller than --resize makes them, and are enlarged; the first, "
        "a/low.png, from 16x70 to 40x40 pixels"
    )


@pytest.mark.parametrize("value", ["yesterday", "nan", "1e30"])
def test_a_wrong_source_date_epoch_is_refused_at_once(
    value: str, run: Run, mixed: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
    with pytest.raises(JobError, match=f"SOURCE_DATE_EPOCH: expected seconds .* got '{value}'"):
        run(mixed, tmp_path / "store", scheduler="tcp://127.0.0.1:1")
    assert not list(tmp_path.glob("store*"))


def test_images_in_tar_files_give_the_same_latents(run: Run, mixed: Source, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for k in range(2):
        with tarfile.open(tmp_path / f"shards/{k}.tar", "w") as tar:
            for path in mixed.samples["path"].to_pylist()[k::2]:
                tar.add(mixed.folder / path, path)
    store = run(open_source(tmp_path / "shards"), tmp_path / "packed").store
    near = run(mixed, tmp_path / "near").store
    rows = {row["path"]: k for k, row in enumerate(near.samples.to_pylist())}
    assert store.manifest is not None
    assert store.manifest.samples.ok == 40
    assert store.header.source.classes == near.header.source.classes
    for k, row in enumerate(store.samples.to_pylist()):
        other = rows[row["path"].partition(".tar/")[2]]
        for name in ("label", "source_sha256", "rate_bpp"):
            assert row[name] == near.samples[name][other].as_py()
        y_hat = store.read_sample(k)["y_hat"]
        np.testing.assert_array_equal(y_hat, near.read_sample(other)["y_hat"])
