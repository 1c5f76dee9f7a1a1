"""Reading images: the pixels torchvision's users get, and a status for each that has none."""

import io
import os
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from latentset.datasets.errors import ImageError
from latentset.datasets.sources import images as module
from latentset.datasets.sources.images import (
    Status,
    decode_image,
    decoder_version,
    read_bytes,
    read_image,
    read_size,
)

HEIGHT, WIDTH = 24, 32


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def noise(seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Image.fromarray(values)


def solid(mode: str, colour: int | tuple[int, ...]) -> Image.Image:
    return Image.new(mode, (WIDTH, HEIGHT), colour)


def palette() -> Image.Image:
    """All pixels have index 1, which is orange and half transparent."""
    image = solid("P", 1)
    image.putpalette([0, 0, 0, 255, 128, 0])
    return image


def deep(value: int) -> Image.Image:
    return Image.fromarray(np.full((HEIGHT, WIDTH), value, np.uint16))


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be shown turned by a quarter
    return encoded(noise(), "JPEG", exif=exif)


def several(form: str, **options: object) -> bytes:
    return encoded(noise(0), form, save_all=True, append_images=[noise(1), noise(2)], **options)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

SOUND = {
    "rgb.png": encoded(noise(), "PNG"),
    "rgb.jpg": encoded(noise(), "JPEG"),
    "rgb.webp": encoded(noise(), "WEBP"),
    "rgb.bmp": encoded(noise(), "BMP"),
    "rgb.ppm": encoded(noise(), "PPM"),
    "still.gif": encoded(noise(), "GIF"),
    "png_named.jpg": encoded(noise(), "PNG"),
    "grey.png": encoded(solid("L", 100), "PNG"),
    "grey.jpg": encoded(solid("L", 100), "JPEG"),
    "bilevel.png": encoded(solid("1", 1), "PNG"),
    "palette.png": encoded(palette(), "PNG"),
    "palette_transparent.png": encoded(palette(), "PNG", transparency=b"\x00\x80"),
    "grey_alpha.png": encoded(solid("LA", (50, 0)), "PNG"),
    "alpha.png": encoded(solid("RGBA", (10, 20, 30, 0)), "PNG"),
    "cmyk.tif": encoded(solid("CMYK", (255, 51, 0, 0)), "TIFF"),
    "cmyk.jpg": encoded(solid("CMYK", (255, 51, 0, 0)), "JPEG"),
    "deep_dark.png": encoded(deep(100), "PNG"),
    "deep_bright.tif": encoded(deep(40000), "TIFF"),
    "rotated.jpg": rotated(),
    "pages.tif": several("TIFF"),
    "views.jpg": several("MPO"),
    "progressive.jpg": encoded(noise(), "JPEG", progressive=True),
    "profile.jpg": encoded(noise(), "JPEG", icc_profile=SRGB),
    "rgb.avif": encoded(noise(), "AVIF"),
    "panorama.png": encoded(noise().resize((20_000, HEIGHT)), "PNG"),
    "turned.tif": encoded(noise(), "TIFF", tiffinfo={274: 6}),
}

COLOURS = {
    "grey.png": (100, 100, 100),
    "bilevel.png": (255, 255, 255),
    "palette.png": (255, 128, 0),
    "palette_transparent.png": (255, 128, 0),  # not blended with anything
    "grey_alpha.png": (50, 50, 50),
    "alpha.png": (10, 20, 30),
    "cmyk.tif": (0, 204, 255),  # 255 - ink
    "deep_dark.png": (100, 100, 100),
    "deep_bright.tif": (255, 255, 255),  # clipped, not divided by 256
}


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """Write a PNG header, and pixels of mode L, by the words of its specification."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def first_part(data: bytes, share: float = 0.6) -> bytes:
    return data[: int(len(data) * share)]


def with_frame(marker: int, bits: int) -> bytes:
    """A JPEG whose frame header has another marker (T.81, table B.1) and precision."""
    data = bytearray(SOUND["rgb.jpg"])
    start = data.index(b"\xff\xc0")
    data[start + 1], data[start + 4] = marker, bits
    return bytes(data)


BROKEN = {
    "lossless.jpg": (with_frame(0xC3, 8), "unreadable", "damaged: broken data stream"),
    "12_bits.jpg": (with_frame(0xC1, 12), "unreadable", "JPEG file, .*JPEG of 12 bits"),
    "pointer.jpg": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "not_an_image",
        "git lfs pull",
    ),
    "page.jpg": (b"<!DOCTYPE html><html>", "not_an_image", "a web page"),
    "line.png": (png(300, 1), "too_small", "1x300 pixels"),
    "empty.jpg": (b"", "empty", "the file is empty"),
    "text.jpg": (b"not an image, honestly", "not_an_image", "begins with b'not an image, ho'"),
    "document.jpg": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n",
        "not_an_image",
        "%!PS",
    ),
    "cut.jpg": (first_part(SOUND["rgb.jpg"], 0.8), "truncated", "cut off: .*truncated"),
    "cut.png": (first_part(SOUND["rgb.png"]), "truncated", "cut off: .*truncated"),
    "cut.bmp": (first_part(SOUND["rgb.bmp"]), "truncated", "cut off: .*truncated"),
    "cut.gif": (first_part(SOUND["still.gif"], 0.9), "truncated", "cut off: .*truncated"),
    "cut.webp": (first_part(SOUND["rgb.webp"]), "truncated", "shorter than its header says"),
    "stub.jpg": (SOUND["rgb.jpg"][:20], "unreadable", "begins like a JPEG file"),
    "moving.gif": (several("GIF"), "animated", r"an animation \(GIF\)"),
    "moving.png": (several("PNG"), "animated", r"an animation \(PNG\)"),
    "moving.webp": (several("WEBP"), "animated", r"an animation \(WEBP\)"),
    "dot.png": (png(1, 1, b"\x00\x07"), "too_small", "1x1 pixels"),
    "thin.png": (
        png(300, 15),
        "too_small",
        r"15x300 pixels \(height x width\): a side is below 16",
    ),
    "bomb.png": (png(20_000, 20_000), "too_large", "too many pixels: .*400000000 pixels"),
}


@pytest.fixture
def written(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The file of the parameter's name, from one of the tables."""
    name = str(request.param)
    path = tmp_path / name
    path.write_bytes(SOUND[name] if name in SOUND else BROKEN[name][0])
    return path


@pytest.mark.parametrize("name", COLOURS)
def test_other_modes_become_rgb(name: str) -> None:
    pixels = decode_image(SOUND[name])
    assert pixels.dtype == np.uint8
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert np.unique(pixels.reshape(-1, 3), axis=0).tolist() == [list(COLOURS[name])]


def test_cmyk_jpeg_is_not_inverted() -> None:
    # As "cmyk.tif", give or take what JPEG loses on a plain colour.
    difference = decode_image(SOUND["cmyk.jpg"]).astype(int) - (0, 204, 255)
    assert abs(difference).max() <= 2


@pytest.mark.parametrize("name", ["rgb.png", "rgb.bmp", "rgb.ppm", "png_named.jpg", "pages.tif"])
def test_lossless_formats_give_the_first_picture(name: str) -> None:
    np.testing.assert_array_equal(decode_image(SOUND[name]), np.asarray(noise(0)))


def test_views_of_a_telephone_give_the_first() -> None:
    np.testing.assert_array_equal(decode_image(SOUND["views.jpg"]), decode_image(SOUND["rgb.jpg"]))


def test_a_colour_profile_changes_no_pixel() -> None:
    np.testing.assert_array_equal(
        decode_image(SOUND["profile.jpg"]), decode_image(SOUND["rgb.jpg"])
    )


def test_tiff_is_turned_by_pillow() -> None:
    turned = np.rot90(np.asarray(noise()), -1)
    np.testing.assert_array_equal(decode_image(SOUND["turned.tif"]), turned)


def test_exif_orientation_is_not_applied() -> None:
    np.testing.assert_array_equal(
        decode_image(SOUND["rotated.jpg"]), decode_image(SOUND["rgb.jpg"])
    )


def test_of_tiff_pillow_applies_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "rotated.tif"
    noise().save(path, exif=exif)
    turned = np.rot90(np.asarray(noise()), -1)
    np.testing.assert_array_equal(read_image(path), turned)
    assert read_size(path) == turned.shape[:2]


@pytest.mark.parametrize("written", SOUND, indirect=True)
def test_size_from_header(written: Path) -> None:
    other = {"panorama.png": (HEIGHT, 20_000), "turned.tif": (WIDTH, HEIGHT)}
    assert read_size(written) == other.get(written.name, (HEIGHT, WIDTH))
    assert read_image(written).shape == (*read_size(written), 3)


@pytest.mark.parametrize("written", SOUND, indirect=True)
def test_equal_to_torchvision(written: Path) -> None:
    folder = pytest.importorskip("torchvision.datasets.folder", reason="train environment only")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about palettes, which torchvision lets through
        expected = np.asarray(folder.default_loader(written))
    np.testing.assert_array_equal(read_image(written), expected)


def test_equal_to_torchvision_on_images(real_images: Path) -> None:
    folder = pytest.importorskip("torchvision.datasets.folder", reason="train environment only")
    paths = sorted((real_images / "imagenet-sample").rglob("*.JPEG"))
    assert len(paths) > 100
    for path in paths:
        expected = np.asarray(folder.default_loader(path))
        np.testing.assert_array_equal(read_image(path), expected)
        assert read_size(path) == expected.shape[:2]


def test_pixels_can_be_written(tmp_path: Path) -> None:
    # torch.from_numpy warns about arrays that cannot.
    assert decode_image(SOUND["rgb.png"]).flags.writeable


@pytest.mark.parametrize("written", BROKEN, indirect=True)
def test_broken_images_have_a_status_and_a_reason(written: Path) -> None:
    _, status, reason = BROKEN[written.name]
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(written)
    assert caught.value.status == status
    assert status in get_args(Status)
    assert str(written.parent) not in str(caught.value)
    assert " at 0x" not in str(caught.value)


@pytest.mark.parametrize(
    "written",
    [n for n, (_, s, _) in BROKEN.items() if s != "truncated" and n != "lossless.jpg"],
    indirect=True,
)
def test_header_tells_all_but_truncation(written: Path) -> None:
    _, status, reason = BROKEN[written.name]
    with pytest.raises(ImageError, match=reason) as caught:
        read_size(written)
    assert caught.value.status == status


def test_no_bytes_are_an_empty_file() -> None:
    with pytest.raises(ImageError, match="the file is empty") as caught:
        decode_image(b"")
    assert caught.value.status == "empty"


def test_reasons_have_no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Image.Image, mode: str) -> None:
        raise ValueError(f"cannot use {object()}")

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(ImageError, match=r"^damaged: cannot use <object object>$"):
        decode_image(SOUND["rgb.jpg"])


def test_fewest_pixels_that_are_read() -> None:
    pixels = bytes([0] + [7] * 16) * 16  # each row begins with its filter, 0
    assert decode_image(png(16, 16, pixels)).tolist() == [[[7] * 3] * 16] * 16


def test_many_pixels_are_no_bomb_and_no_warning(tmp_path: Path) -> None:
    # Pillow warns above 89 million pixels and refuses above twice as many.
    (tmp_path / "large.png").write_bytes(png(13_000, 13_000))
    assert read_size(tmp_path / "large.png") == (13_000, 13_000)


@pytest.mark.parametrize("read", [read_image, read_size])
def test_what_is_no_file(tmp_path: Path, read: object) -> None:
    assert callable(read)
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for a writer for ever
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "file.jpg").write_bytes(b"x")
    for name, status, reason in [
        ("folder.jpg", "unreadable", "not a regular file"),
        ("pipe.jpg", "unreadable", "not a regular file"),
        ("dangling.jpg", "missing", "no such file"),
        ("absent.jpg", "missing", "no such file"),
        ("file.jpg/absent.jpg", "missing", "no such file"),
    ]:
        with pytest.raises(ImageError, match=reason) as caught:
            read(tmp_path / name)
        assert caught.value.status == status


def test_system_errors_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / "secret.jpg").write_bytes(SOUND["rgb.jpg"])
    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(ImageError, match=r"^cannot be read: Permission denied$") as caught:
        read_image(tmp_path / "secret.jpg")
    assert caught.value.status == "unreadable"


def test_huge_files_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "disk.jpg"
    with path.open("wb") as file:
        file.truncate(2**30 + 1)  # sparse
    with pytest.raises(ImageError, match="1073741825 bytes") as caught:
        read_bytes(path)
    assert caught.value.status == "too_large"


def test_lack_of_memory_is_not_the_images_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Image.Image, mode: str) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(MemoryError):
        decode_image(SOUND["rgb.jpg"])


def test_silence_of_overlapping_threads() -> None:
    def warn() -> None:
        warnings.warn_explicit("a palette", UserWarning, "Image.py", 1, module="PIL.Image")

    before = list(warnings.filters)
    first, second = module._pillow_silenced(), module._pillow_silenced()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    warn()  # the second one is still inside
    with pytest.raises(UserWarning, match="not Pillow's"):
        warnings.warn("not Pillow's", UserWarning, stacklevel=1)
    second.__exit__(None, None, None)
    assert list(warnings.filters) == before
    with pytest.raises(UserWarning, match="a palette"):
        warn()


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    name=st.sampled_from(sorted(SOUND)),
    locations=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4),
    share=st.floats(0.2, 1),
)
def test_no_damage_stops_a_job(
    name: str, locations: list[tuple[float, int]], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # damaged sizes must not fill the memory
    data = bytearray(SOUND[name])
    for location, value in locations:
        data[int(location * len(data))] = value
    try:
        pixels = decode_image(first_part(bytes(data), share))
    except ImageError as error:
        status = error.status
    else:
        status = "ok"
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3
    assert status in set(get_args(Status)) - {"missing", "changed"}


def test_decoder_is_named_with_its_library() -> None:
    assert re.fullmatch(r"Pillow \d+\.\d+\.\d+ \(libjpeg(-turbo)? [\d.]+\)", decoder_version())
