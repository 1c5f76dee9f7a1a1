"""What every store of pixels gives, in whichever format it is kept, of whichever kind it is."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentset.cli.store import inspect
from latentset.datasets.errors import StoreCorruptError, StoreError, StoreIncompleteError
from latentset.datasets.storage.location import Folder
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.convert import compare, convert
from latentset.datasets.store.verify import verify
from tests.makers.synthetic import write_synthetic_pixels, write_synthetic_store

FAILED = 3
SIZES = ((20, 30), (40, 17))
KINDS = ("original", "decoded")


@pytest.fixture(scope="module")
def zarr_stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("zarr")
    return {
        kind: write_synthetic_pixels(
            folder / f"{kind}.zarr",
            samples=12,
            sizes=SIZES,
            failed=(FAILED,),
            decoded=kind == "decoded",
            shard_bytes=1 << 12,
        )
        for kind in KINDS
    }


@pytest.fixture(scope="module")
def hdf5_stores(
    zarr_stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("hdf5")
    for kind, path in zarr_stores.items():
        convert(open_store(path), Folder(folder / f"{kind}.h5"), "hdf5")
    return {kind: folder / f"{kind}.h5" for kind in KINDS}


@pytest.fixture(params=[(form, kind) for form in ("zarr", "hdf5") for kind in KINDS], ids="-".join)
def path(
    request: pytest.FixtureRequest, zarr_stores: dict[str, Path], hdf5_stores: dict[str, Path]
) -> Path:
    form, kind = request.param
    return (zarr_stores if form == "zarr" else hdf5_stores)[kind]


@pytest.fixture
def store(path: Path) -> Store:
    return open_store(path)


def test_images_have_their_sizes(store: Store) -> None:
    assert store.header.arrays == ("pixels",)
    assert store.header.format_version == "1.1"
    assert store.header.layout.shards > 1
    for k in (0, 1, 7, 10):
        sample = store.read_sample(k)
        assert sample.keys() == {"pixels"}
        assert sample["pixels"].shape == (*SIZES[k % 2], 3)
        assert sample["pixels"].dtype == np.uint8
        # The colour is the class's: 32 plus 127.5, 63.75, 31.875 for the second of two.
        expected = np.array([32, 32, 32] if k % 2 == 0 else [159.5, 95.75, 63.9])
        assert np.abs(sample["pixels"].mean((0, 1)) - expected).max() < 3


def test_rows_are_in_row_major_order(store: Store) -> None:
    row = store.samples.slice(5, 1).to_pylist()[0]
    height, width = row["latent_height"], row["latent_width"]
    assert (height, width) == (row["height"], row["width"]) == SIZES[1]
    assert row["z_first_row"] == -1
    image = store.read_sample(5)["pixels"]
    array = store.array("pixels")
    for i, j in ((0, 0), (0, 16), (1, 0), (39, 16)):
        location = row["first_row"] + i * width + j
        assert np.array_equal(np.asarray(array[location : location + 1])[0], image[i, j])


def test_an_array_that_is_not_there(store: Store) -> None:
    with pytest.raises(StoreError, match=r"has no array 'y_hat'; it has pixels"):
        store.shape("y_hat")


def test_a_sample_that_failed_has_no_pixels(store: Store) -> None:
    with pytest.raises(StoreError, match=r"sample 3 \(odd/000003\) has no pixels: truncated"):
        store.read_sample(FAILED)


def test_measures_are_of_decoded_pixels_only(path: Path, store: Store) -> None:
    if path.stem == "original":
        assert "psnr_db" not in store.samples.column_names
        assert store.header.codec is None
        return
    assert store.header.codec is not None
    assert store.samples["psnr_db"].to_pylist() == [None if k == FAILED else 30 for k in range(12)]
    assert store.samples["ms_ssim"].null_count == 12


def test_it_is_sound(path: Path) -> None:
    findings = verify(path)
    assert findings.problems == []
    assert findings.outcome == "sound"


def test_flipped_bytes_are_found(path: Path, tmp_path: Path) -> None:
    target = tmp_path / path.name
    if path.is_file():
        shutil.copy(path, target)
        file = target
        with h5py.File(path) as opened:
            start = opened["pixels"].id.get_chunk_info(0).byte_offset
    else:
        shutil.copytree(path, target)
        file, start = target / "pixels" / "c" / "0" / "0", 0
    content = bytearray(file.read_bytes())
    content[start + 40] ^= 4
    file.write_bytes(bytes(content))
    with pytest.raises(StoreCorruptError, match="pixels"):
        open_store(target).read_sample(0)
    findings = verify(target)
    assert findings.outcome == "damaged"
    assert any("pixels: rows 0 to" in problem for problem in findings.problems)
    assert any("even/000000" in problem for problem in findings.problems)


def test_there_and_back_gives_the_same_bytes(
    zarr_stores: dict[str, Path], hdf5_stores: dict[str, Path], tmp_path: Path
) -> None:
    for kind in KINDS:
        first = open_store(hdf5_stores[kind])
        back = convert(first, Folder(tmp_path / f"{kind}.zarr"), "zarr")
        assert compare(first, back) == []
        files = {p.relative_to(zarr_stores[kind]) for p in zarr_stores[kind].rglob("*.*")}
        files |= {p.relative_to(zarr_stores[kind]) for p in zarr_stores[kind].rglob("c/*/0")}
        assert len(files) > 4
        for name in files:
            before, after = (zarr_stores[kind] / name, tmp_path / f"{kind}.zarr" / name)
            assert before.read_bytes() == after.read_bytes()


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("latent_width", 16, "latent size does not follow from the image's: odd/000001"),
        ("psnr_db", -1.0, "psnr_db is negative or too large: odd/000001"),
    ],
)
def test_verify_checks_the_table(
    column: str,
    value: float,
    problem: str,
    zarr_stores: dict[str, Path],
    sign: Callable[[Path], None],
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.zarr"
    shutil.copytree(zarr_stores["decoded"], path)
    table = pq.read_table(path / "samples.parquet")
    rows = table.to_pylist()
    rows[1][column] = value
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path / "samples.parquet")
    sign(path)
    assert any(problem in found for found in verify(path).problems)


def test_measures_that_nobody_took_are_a_problem(
    zarr_stores: dict[str, Path], sign: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "store.zarr"
    shutil.copytree(zarr_stores["decoded"], path)
    header = (path / "zarr.json").read_text()
    assert '"measured": true' in header
    (path / "zarr.json").write_text(header.replace('"measured": true', '"measured": false'))
    sign(path)
    (found,) = verify(path).problems
    assert "psnr_db of a sample that was not compared: even/000000" in found


def test_a_stray_z_row_is_refused(
    zarr_stores: dict[str, Path], sign: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "store.zarr"
    shutil.copytree(zarr_stores["original"], path)
    table = pq.read_table(path / "samples.parquet")
    column = table.schema.get_field_index("z_first_row")
    field = table.schema.field(column)
    zeros = pa.array([0] * 12, pa.int64())
    pq.write_table(table.set_column(column, field, zeros), path / "samples.parquet")
    sign(path)
    with pytest.raises(StoreCorruptError, match=r"row 0 \(even/000000\): z_first_row"):
        open_store(path)


def test_one_size_makes_one_chunk_a_sample(tmp_path: Path) -> None:
    store = open_store(write_synthetic_pixels(tmp_path / "s.zarr", sizes=((24, 32),)))
    assert store.header.layout.chunk_rows == 24 * 32
    mixed = open_store(
        write_synthetic_pixels(tmp_path / "m.zarr", samples=4, sizes=((16, 16), (200, 200)))
    )
    assert mixed.header.layout.chunk_rows == 32768


def test_stores_of_latents_stay_1_0(tmp_path: Path) -> None:
    store = open_store(write_synthetic_store(tmp_path / "s.zarr", samples=2))
    assert store.header.format_version == "1.0"
    assert store.manifest is not None
    assert store.manifest.format_version == "1.0"
    assert "pixels" not in (tmp_path / "s.zarr" / "zarr.json").read_text()


@pytest.mark.usefixtures("wide_terminal")
def test_they_are_summarised(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect(str(path))
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    parts = ["samples 12: 11 with pixels, 1 failed", "stored images 2 sizes, 20x30 to 40x17"]
    if path.stem == "decoded":
        parts += ["pixels decoded", "codec synthetic (tfc2)", "PSNR 30.0000 dB on average of 11"]
        parts += ["latents of images, resized by none"]
    else:
        # Bits by rate_bpp: 6 images of 20x30 pixels at 0.25, 5 of 40x17 at 0.26.
        parts += ["pixels of the images", "files 223 bytes by rate_bpp"]
        assert "codec" not in text
    for part in parts:
        assert part in text, part


@pytest.mark.parametrize(("decoded", "command"), [(True, "decode"), (False, "encode")])
def test_an_incomplete_store_names_its_command(decoded: bool, command: str, tmp_path: Path) -> None:
    path = write_synthetic_pixels(tmp_path / "s.zarr", samples=2, decoded=decoded)
    (path / "manifest.json").unlink()
    with pytest.raises(StoreIncompleteError, match=f"run the same latentset {command} again"):
        open_store(path)
