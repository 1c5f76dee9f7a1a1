"""Stores of pixels written by hand, from docs/store-spec.md 1.1: read, and written the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from latentset.cli.store import inspect
from latentset.datasets.store import open_store
from latentset.datasets.store.header import parse_header
from latentset.datasets.store.verify import verify
from latentset.datasets.store.zarr.writer import PixelBuffer, metadata_objects, shard_objects
from tests.makers import literal
from tests.makers.literal import changed, put_down

COMMON: dict[str, Any] = {
    "format_version": "1.1",
    "arrays": ["pixels"],
    "resize": "none",
    "source": literal.HEADER["source"],
    "layout": {
        "chunk_rows": 2,
        "shard_rows": 4,
        "z_chunk_rows": 0,
        "z_shard_rows": 0,
        "shards": 1,
        "target_shard_bytes": 12,
    },
    "provenance": literal.HEADER["provenance"],
}
ORIGINAL: dict[str, Any] = {**COMMON, "pixels": {"kind": "original"}}
DECODED: dict[str, Any] = {
    **COMMON,
    "codec": literal.HEADER["codec"],
    "pixels": {
        "kind": "decoded",
        "latents": {
            "fingerprint": "12" * 32,
            "resize": "none",
            "provenance": literal.HEADER["provenance"],
            "measured": True,
        },
    },
}
DECODED_ON_AVX2 = changed(
    changed(DECODED, "format_version", value="1.2"),
    *("pixels", "latents", "provenance", "cpu_isa"),
    value="avx2",
)

# Sample 0 is 1x2 pixels, sample 1 is 2x1: red, green, blue of each.
PIXELS = [[[255, 0, 7], [1, 2, 3]], [[9, 8, 200], [0, 0, 0]]]
SHARDS = {"pixels/c/0/0": literal.shard([literal.chunk(sample, "B") for sample in PIXELS])}
ARRAY = literal.array_metadata("uint8", 3, 4, 2)

COLUMNS: dict[str, Any] = {
    **literal.COLUMNS,
    "height": (pa.int32(), [1, 2]),
    "width": (pa.int32(), [2, 1]),
    "z_first_row": (pa.int64(), [-1, -1]),
}
MEASURES: dict[str, Any] = {
    "psnr_db": (pa.float64(), [31.5, float("inf")]),
    "ms_ssim": (pa.float64(), [0.75, None]),
}


@pytest.fixture(params=["original", "decoded", "decoded on avx2"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(kind: str, tmp_path: Path) -> Path:
    header = {"original": ORIGINAL, "decoded": DECODED, "decoded on avx2": DECODED_ON_AVX2}[kind]
    objects = {"zarr.json": literal.group_metadata(header), "pixels/zarr.json": ARRAY, **SHARDS}
    columns = COLUMNS if kind == "original" else {**COLUMNS, **MEASURES}
    return put_down(tmp_path / "pixels", objects, columns)


def test_the_reader_reads_it(store: Path, kind: str) -> None:
    opened = open_store(store)
    assert opened.header.pixels is not None
    assert opened.header.pixels.kind == kind.partition(" ")[0]
    assert opened.shape("pixels") == (4, 3)
    assert opened.read_sample(0)["pixels"].tolist() == [PIXELS[0]]
    assert opened.read_sample(1)["pixels"].tolist() == [[row] for row in PIXELS[1]]
    assert str(opened.read_sample(1)["pixels"].dtype) == "uint8"
    measured = {"psnr_db", "ms_ssim"} & set(opened.samples.column_names)
    assert len(measured) == (0 if kind == "original" else 2)
    if kind != "original":
        assert opened.samples["psnr_db"].to_pylist() == [31.5, float("inf")]
        assert opened.samples["ms_ssim"].to_pylist() == [0.75, None]


@pytest.mark.usefixtures("wide_terminal")
@pytest.mark.parametrize("kind", ["decoded"], indirect=True)
def test_an_image_that_is_exact_is_not_averaged(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect(str(store))
    said = capsys.readouterr().out
    assert "31.5000 dB on average of 1, infinite for 1 " in said
    assert "0.7500 on average of 1 " in said  # MS-SSIM: the other is too small for it


def test_it_is_sound(store: Path) -> None:
    findings = verify(store)
    assert findings.problems == []
    assert findings.outcome == "sound"


def test_tensorstore_reads_it(store: Path) -> None:
    tensorstore = pytest.importorskip("tensorstore", reason="of the train environment")
    array = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(store / "pixels")}}
    ).result()
    assert array.read().result().tolist() == [*PIXELS[0], *PIXELS[1]]


@pytest.mark.parametrize(
    "header", [ORIGINAL, DECODED, DECODED_ON_AVX2], ids=["original", "decoded", "avx2"]
)
def test_the_writer_writes_the_same(header: dict[str, Any]) -> None:
    parsed = parse_header(header, "by hand")
    assert parsed.lowest_version == header["format_version"]
    buffer = PixelBuffer(parsed, 0)
    buffer.put(0, np.array(PIXELS[0], np.uint8).reshape(1, 2, 3))
    buffer.put(2, np.array(PIXELS[1], np.uint8).reshape(2, 1, 3))
    assert shard_objects(parsed, 0, buffer.rows()) == SHARDS
    written = metadata_objects(parsed)
    assert written.keys() == {"zarr.json", "pixels/zarr.json"}
    assert json.loads(written["zarr.json"])["attributes"]["latentset"] == header
    expected = json.loads(ARRAY)
    found = json.loads(written["pixels/zarr.json"])
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (changed(ORIGINAL, "format_version", value="1.0"), "there are no pixels in 1.0"),
        (changed(ORIGINAL, "pixels"), "pixels: expected where the array is pixels"),
        (changed(ORIGINAL, "codec", value=literal.HEADER["codec"]), "codec: expected of everyth"),
        (changed(DECODED, "codec"), "codec: expected of everything but original pixels"),
        (changed(DECODED, "pixels", "latents"), "expected of pixels that are decoded"),
        (
            changed(ORIGINAL, "pixels", "latents", value=DECODED["pixels"]["latents"]),
            "expected of pixels that are decoded",
        ),
        (changed(ORIGINAL, "arrays", value=["pixels", "y_hat"]), "or pixels alone, got pixels, y"),
        (changed(ORIGINAL, "layout", "z_chunk_rows", value=1), "z_chunk_rows and z_shard_rows"),
        (
            changed(ORIGINAL, "layout", "shard_rows", value=1 << 30),
            "layout.shard_rows: expected at most 2147483648 bytes",
        ),
        (changed(DECODED, "pixels", "latents", "measured"), "pixels.latents.measured: Field"),
    ],
)
def test_headers_that_do_not_fit_are_refused(header: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        parse_header(header, "by hand")


def test_a_header_of_latents_needs_z_rows() -> None:
    header = json.loads(json.dumps(literal.HEADER))
    header["layout"] |= {"z_chunk_rows": 0, "z_shard_rows": 0}
    with pytest.raises(ValueError, match="z_chunk_rows and z_shard_rows beyond 0 where there is z"):
        parse_header(header, "by hand")
