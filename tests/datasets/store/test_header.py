import json
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from latentset.datasets.errors import StoreFormatError
from latentset.datasets.store.header import CodecInfo, parse_header
from latentset.datasets.store.scales import number_scales, scale_indexes, stored_numbers

CODEC: dict[str, Any] = {
    "name": "c",
    "sha256": "ab" * 32,
    "form": "tfc1",
    "tensors": {"y_hat": "a:0"},
    "channels": 3,
    "z_channels": 2,
    "scale_table": [0.5, 1.0, 2.0, 4.0],
    "z_offset": [0.25, -1.0],
    "y_downsampling": 16,
    "z_downsampling": 64,
}
HEADER: dict[str, Any] = {
    "format_version": "0.1",
    "codec": CODEC,
    "arrays": ["y_hat", "scale_index", "z_hat"],
    "resize": "none",
    "source": {
        "kind": "list",
        "name": "n",
        "samples": 1,
        "classes": ["x"],
        "listing_sha256": "cd" * 32,
    },
    "layout": {
        "chunk_rows": 2,
        "shard_rows": 4,
        "z_chunk_rows": 1,
        "z_shard_rows": 1,
        "shards": 1,
        "target_shard_bytes": 100,
    },
    "provenance": {
        "latentset": "0",
        "tensorflow": "0",
        "tensorflow_compression": "0",
        "onednn": True,
        "device": "CPU",
        "decoder": "d",
        "python": "3",
        "numpy": "2",
        "zarr": "3",
        "created": "2026-01-01T00:00:00Z",
    },
}


def changed(*path: str, value: object) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(json.dumps(HEADER))
    inner = header
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return header


def test_the_header_of_the_specification_is_read_and_written_back() -> None:
    assert json.loads(parse_header(HEADER, "s").model_dump_json()) == HEADER


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "not a LatentSet store"),
        (
            changed("format_version", value="9.9"),
            "format_version: expected 0.1 or 1.0 or 1.1 or 1.2, got '9.9'",
        ),
        (changed("new", value=1), "new: Extra inputs are not permitted"),
        (changed("codec", "new", value=1), "codec.new: Extra inputs are not permitted"),
        (changed("codec", "sha256", value="abc"), "codec.sha256: .*got 'abc'"),
        (changed("codec", "z_offset", value=[0.0]), r"one value a channel \(2\), got 1"),
        (changed("codec", "scale_table", value=[1.0, 1.0]), "expected each value once"),
        (changed("codec", "scale_table", value=[-1.0]), "codec.scale_table.0: "),
        (changed("codec", "scale_table", value=[float("nan")]), "codec.scale_table.0: "),
        (changed("source", "classes", value=["x", "x"]), "source.classes: .*names .* that differ"),
        (changed("source", "classes", value=["x", ""]), "source.classes: .*none of them empty"),
        (changed("arrays", value=["y_hat"]), "arrays: expected y_hat, scale_index, z_hat"),
        (changed("layout", "shard_rows", value=5), "multiple of chunk_rows"),
        (changed("layout", "shards", value=0), "layout.shards: .*got 0"),
        (changed("provenance", "cpu_isa", value="avx2"), "no cpu_isa and no h_s_exact_to in 0.1"),
        (changed("codec", "h_s_exact_to", value=256), "no cpu_isa and no h_s_exact_to in 0.1"),
        (changed("provenance", "cpu_isa", value=""), "provenance.cpu_isa: .*got ''"),
    ],
)
def test_other_headers_are_refused(header: object, message: str) -> None:
    with pytest.raises(StoreFormatError, match=message):
        parse_header(header, "s")


def test_vector_instructions_are_of_version_1_2() -> None:
    for path, value in ((("provenance", "cpu_isa"), "of tomorrow"), (("codec", "h_s_exact_to"), 9)):
        header = changed(*path, value=value)
        header["format_version"] = "1.2"
        parsed = parse_header(header, "s")
        assert json.loads(parsed.model_dump_json()) == header
        assert parsed.lowest_version == "1.2"
    assert parse_header(HEADER, "s").lowest_version == "1.0"


def test_grids_are_rounded_up() -> None:
    codec = CodecInfo.model_validate(CODEC)
    assert codec.y_size(256, 256) == (16, 16)
    assert codec.y_size(362, 500) == (23, 32)
    assert codec.z_size(362, 500) == (6, 8)
    assert codec.y_size(16, 17) == (1, 2)
    assert codec.z_size(16, 65) == (1, 2)


def test_a_header_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        parse_header(HEADER, "s").resize = "short:256"  # type: ignore[misc]


def test_scales_are_numbered_so_that_neighbours_differ_in_one_bit() -> None:
    codec = number_scales(CodecInfo.model_validate(CODEC))
    assert codec.scale_table == (0.5, 1.0, 4.0, 2.0)  # Gray code: 0 1 3 2
    assert stored_numbers(codec).tolist() == [0, 1, 3, 2]
    assert scale_indexes(codec).tolist() == [0, 1, 3, 2]
    large = CodecInfo.model_validate(CODEC | {"scale_table": [1.0 + k for k in range(64)]})
    numbers = stored_numbers(number_scales(large))
    assert all((int(a) ^ int(b)).bit_count() == 1 for a, b in pairwise(numbers))
    assert [number_scales(large).scale_table[n] for n in numbers] == list(large.scale_table)
    assert scale_indexes(number_scales(large))[numbers].tolist() == list(range(64))


def test_a_table_that_is_no_power_of_two_stays_as_it_is() -> None:
    codec = CodecInfo.model_validate(CODEC | {"scale_table": [1.0, 2.0, 3.0]})
    assert number_scales(codec) == codec
    assert stored_numbers(codec).tolist() == [0, 1, 2]
