import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from latentset.datasets.errors import JobError
from latentset.datasets.sources import Source, open_source
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.storage.location import Folder
from latentset.datasets.store.arrays import MIXED_CHUNK_ROWS, RowForm
from latentset.datasets.store.scales import number_scales
from latentset.pipeline.jobs.plan import FileFacts, Plan, limit_enlarged, make_plan, read_facts
from latentset.pipeline.jobs.settings import Settings, Software, describe_source

ROWS = RowForm(2 * 6, MIXED_CHUNK_ROWS)
"""Of the stand-in's channels."""


def settings_for(source: Source, standin: Any, resize: str = "none", **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "format_version": "1.0",
        "codec": number_scales(standin.StandIn("standin").info),
        "arrays": ("y_hat", "scale_index", "z_hat"),
        "resize": resize,
        "source": describe_source(source),
        "target_shard_bytes": 1 << 20,
        "software": Software(
            tensorflow="1", tensorflow_compression="1", onednn=True, device="CPU", decoder="d"
        ),
    }
    return Settings(**{**values, **changes})


def test_facts_are_read_from_headers(mixed: Source) -> None:
    (mixed.folder / "a" / "bad.jpg").write_text("text")
    found = read_facts(["a/000.png", "b/001.png", "a/bad.jpg", "a/none.png"], str(mixed.folder))
    size = (mixed.folder / "a" / "000.png").stat().st_size
    assert found[0] == FileFacts(64, 64, size)
    assert (found[1].height, found[1].width) == (48, 100)
    assert (found[2].status, found[2].bytes) == ("not_an_image", 4)
    assert (found[3].status, found[3].bytes) == ("missing", 0)


def test_a_path_out_of_the_source_is_never_followed(mixed: Source, tmp_path: Path) -> None:
    shutil.copy(mixed.folder / "a" / "000.png", tmp_path / "secret.png")
    (mixed.folder / "link.png").symlink_to(tmp_path / "secret.png")
    for path in ("../secret.png", str(tmp_path / "secret.png"), "link.png"):
        (fact,) = read_facts([path], str(mixed.folder))
        assert fact.status == "unreadable"
        assert str(mixed.folder) not in fact.reason  # the same text on every machine


def test_the_plan_says_what_becomes_of_every_sample(
    mixed: Source, standin: Any, tmp_path: Path
) -> None:
    facts = [FileFacts(100, 200, 10), FileFacts(status="empty", reason="no bytes")]
    facts += [FileFacts(64, 64, 5)] * 38
    settings = settings_for(mixed, standin, "short:40")
    plan = make_plan(Folder(tmp_path), mixed, settings, facts, ROWS)
    rows = plan.table().to_pylist()
    first = {k: rows[0][k] for k in ("height", "width", "encoded_height", "encoded_width")}
    assert first == {"height": 100, "width": 200, "encoded_height": 40, "encoded_width": 80}
    assert (rows[0]["latent_height"], rows[0]["latent_width"]) == (3, 5)
    assert (rows[1]["status"], rows[1]["first_row"], rows[1]["latent_height"]) == ("empty", -1, 0)
    assert rows[2]["status"] == "ok"
    assert [r["id"] for r in rows] == mixed.samples["id"].to_pylist()
    assert plan.header.source.samples == 40


def test_the_plan_is_a_pure_function(mixed: Source, standin: Any, tmp_path: Path) -> None:
    facts = read_facts(mixed.samples["path"].to_pylist(), str(mixed.folder))
    for name in ("one", "two"):
        make_plan(Folder(tmp_path / name), mixed, settings_for(mixed, standin), facts, ROWS)
    for file in ("plan.json", "plan.parquet"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_plan_is_read_by_shards(mixed: Source, standin: Any, tmp_path: Path) -> None:
    facts = read_facts(mixed.samples["path"].to_pylist(), str(mixed.folder))
    settings = settings_for(mixed, standin)
    plan = make_plan(Folder(tmp_path), mixed, settings, facts, ROWS)
    assert plan.fingerprint == settings.fingerprint
    assert plan.header.source == settings.source
    shards = [plan.rows(k) for k in range(plan.header.layout.shards)]
    assert [asdict(row) for rows in shards for row in rows] == plan.table().to_pylist()
    assert all(row.shard == k for k, rows in enumerate(shards) for row in rows)


def test_an_altered_plan_is_refused(mixed: Source, standin: Any, tmp_path: Path) -> None:
    facts = read_facts(mixed.samples["path"].to_pylist(), str(mixed.folder))
    make_plan(Folder(tmp_path), mixed, settings_for(mixed, standin), facts, ROWS)
    whole = (tmp_path / "plan.parquet").read_bytes()
    (tmp_path / "plan.parquet").write_bytes(whole + b"x")
    with pytest.raises(JobError, match=r"plan\.parquet differs from its digest"):
        Plan(Folder(tmp_path))


def test_the_fingerprint_changes_with_every_setting(mixed: Source, standin: Any) -> None:
    base = settings_for(mixed, standin)
    assert settings_for(open_source(mixed.folder), standin).fingerprint == base.fingerprint
    others = [
        settings_for(mixed, standin, "short:40"),
        settings_for(mixed, standin, target_shard_bytes=1 << 21),
        settings_for(mixed, standin, codec=standin.StandIn("standin:other").info),
        settings_for(mixed, standin, arrays=("y_hat", "scale_index", "z_hat", "sigma_hat")),
        settings_for(mixed, standin, software=base.software.model_copy(update={"onednn": False})),
    ]
    (mixed.folder / "a" / "000.png").rename(mixed.folder / "a" / "999.png")
    others.append(settings_for(open_source(mixed.folder), standin))
    assert len({s.fingerprint for s in (base, *others)}) == 7


def test_the_fingerprint_does_not_depend_on_where_the_source_lies(
    mixed: Source, standin: Any, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere" / "mixed"
    shutil.copytree(mixed.folder, moved)
    here, there = (settings_for(s, standin) for s in (mixed, open_source(moved)))
    assert here.fingerprint == there.fingerprint


@pytest.mark.parametrize(
    ("size", "rule", "status"),
    [
        ((20, 8000), "short:256", "too_large"),
        ((8000, 20), "short:256", "too_large"),
        ((20, 8000), "none", "ok"),
        ((20, 8000), "exact:256", "ok"),
        ((300, 40_000), "short:256", "ok"),  # has more pixels itself
        ((500, 3000), "short:1024", "ok"),
        ((1000, 1500), "short:4096", "ok"),  # 25 million pixels, but no banner
    ],
)
def test_banners_are_not_enlarged_without_bounds(
    size: tuple[int, int], rule: str, status: str
) -> None:
    found = limit_enlarged(FileFacts(*size, bytes=1), ResizeRule.parse(rule))
    assert found.status == status
    assert found == FileFacts(*size, 1) or "is enlarged to 8388608 pixels at most" in found.reason
