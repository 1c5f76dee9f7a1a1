"""What a store may claim at most (docs/store-spec.md, 9); every store here agrees with itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentset.datasets.errors import StoreError, StoreFormatError
from latentset.datasets.store import open_store
from latentset.datasets.store.verify import verify

AlterHeader = Callable[[Path, Callable[[dict[str, Any]], object]], None]

HUGE = "x" * 2_000_000

TEXTS: dict[str, Callable[[dict[str, Any], str], object]] = {
    "codec.name": lambda h, text: h["codec"].update(name=text),
    "codec.tensors": lambda h, text: h["codec"].update(tensors={"y": text}),
    "codec.tensors ": lambda h, text: h["codec"].update(tensors={text: "y"}),
    "resize": lambda h, text: h.update(resize=text),
    "source.kind": lambda h, text: h["source"].update(kind=text),
    "source.name": lambda h, text: h["source"].update(name=text),
    "source.classes": lambda h, text: h["source"].update(classes=["even", text]),
    "provenance.device": lambda h, text: h["provenance"].update(device=text),
    "provenance.created": lambda h, text: h["provenance"].update(created=text),
    "format_version": lambda h, text: h.update(format_version=text),
    "": lambda h, text: h.update({text: 1}),
}


@pytest.mark.parametrize("text", [HUGE, "é" * 600, "a\x1b[2J", "a\x9bb", "a\u202eb", "a\ud800b"])
def test_a_text_that_is_no_name_is_refused(
    alter_header: AlterHeader, store: Path, text: str
) -> None:
    original = (store / "zarr.json").read_text()
    for field, change in TEXTS.items():
        (store / "zarr.json").write_text(original)
        alter_header(store, lambda header, change=change: change(header, text))  # type: ignore[misc]
        with pytest.raises(StoreFormatError) as caught:
            open_store(store)
        message = str(caught.value)
        assert field.strip() in message
        assert len(message) < 1000
        assert message.isprintable()
        findings = verify(store)
        assert findings.outcome == "damaged"
        assert all(len(line) < 1000 and line.isprintable() for line in findings.problems)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("classes", lambda h: h["source"].update(classes=["x"] * 1_000_001)),
        ("classes", lambda h: h["source"].update(classes=[1] * 500_000)),
        ("tensors", lambda h: h["codec"].update(tensors={str(k): "" for k in range(200)})),
        ("z_offset", lambda h: h["codec"].update(z_channels=10**6, z_offset=[0.0] * 10**6)),
        ("channels", lambda h: h["codec"].update(channels=10**6)),
        ("scale_table", lambda h: h["codec"].update(scale_table=[1e300])),
        ("scale_table", lambda h: h["codec"].update(scale_table=[2e6, 1.0])),
        ("scale_table", lambda h: h["codec"].update(scale_table=[1e-300])),
        ("scale_table", lambda h: h["codec"].update(scale_table=[0.0])),
        ("scale_table", lambda h: h["codec"].update(scale_table=[10**400])),
        ("scale_table", lambda h: h["codec"].update(scale_table=[])),
        ("z_offset", lambda h: h["codec"].update(z_offset=[0.0, float("nan"), 0.0, 0.0])),
        ("z_offset", lambda h: h["codec"].update(z_offset=[0.0, 1e300, 0.0, 0.0])),
        ("samples", lambda h: h["source"].update(samples=10**400)),
        ("samples", lambda h: h["source"].update(samples=2**31)),
        ("shards", lambda h: h["layout"].update(shards=10**6)),
        ("shards", lambda h: h["layout"].update(shards=10**400)),
        ("chunk_rows", lambda h: h["layout"].update(chunk_rows=10**400)),
        ("target_shard_bytes", lambda h: h["layout"].update(target_shard_bytes=10**400)),
        ("h_s_exact_to", lambda h: h["codec"].update(h_s_exact_to=10**400)),
    ],
)
def test_a_number_beyond_its_range_is_refused(
    alter_header: AlterHeader, store: Path, field: str, change: Callable[[dict[str, Any]], object]
) -> None:
    alter_header(store, change)
    with pytest.raises(StoreFormatError, match=field) as caught:
        open_store(store)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("value", [10**400, -1, 1.5, "x" * 10**6, None, 2**60])
@pytest.mark.parametrize("where", ["samples", "shards", "objects"])
def test_counts_of_the_manifest_are_limited(
    write_manifest: Callable[[Path, dict[str, Any]], None],
    read_manifest: Callable[[Path], dict[str, Any]],
    store: Path,
    where: str,
    value: object,
) -> None:
    manifest = read_manifest(store)
    match where:
        case "samples":
            manifest["samples"].update(total=value, ok=value)
        case "shards":
            manifest["shards"][0]["samples"] = value
        case _:
            manifest["objects"][0]["bytes"] = value
    write_manifest(store, manifest)
    with pytest.raises(StoreError, match=where) as caught:
        open_store(store)
    assert len(str(caught.value)) < 1000
    assert verify(store).outcome == "damaged"
