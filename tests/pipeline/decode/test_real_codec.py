"""The decode job with a codec that ships, against its own receiver."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentset.datasets.sources import open_source
from latentset.datasets.sources.resize import ResizeRule
from latentset.datasets.store import open_store
from latentset.pipeline.codec.load.codec import load_codec
from latentset.pipeline.decode.decode import decode
from latentset.pipeline.encode.encode import EncodeOptions, encode
from latentset.pipeline.jobs.options import JobOptions
from latentset.pipeline.tensorflow_setup import CPU_ISA, tf

CODEC = "demo-hyperprior-msssim-1"
SIZES = ((176, 192), (165, 201))


def test_pixels_are_the_receivers_and_measured(scheduler: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    root = tmp_path / "images"
    for k, (height, width) in enumerate(SIZES):
        coarse = Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8))
        path = root / "val" / "ab"[k] / "0.png"
        path.parent.mkdir(parents=True)
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(path)
    latents, pixels = tmp_path / "latents", tmp_path / "pixels.h5"
    small = tmp_path / "small"
    encode(open_source(root), latents, CODEC, EncodeOptions(scheduler=scheduler))
    decode(latents, pixels, JobOptions(scheduler=scheduler), codec=CODEC, originals=root)
    resized_job = JobOptions(
        scheduler=scheduler,
        resize=ResizeRule.parse("exact:40x48"),
        format="hdf5",
        shard_bytes=2 << 20,
        batch=1,
    )
    decode(latents, small, resized_job, codec=CODEC, originals=root)

    codec = load_codec(CODEC)
    store, resized = open_store(pixels), open_store(small)
    for k, row in enumerate(store.samples.to_pylist()):
        image = np.array(Image.open(root / row["path"]))
        expected = codec.receiver(codec.sender(image))
        found = store.read_sample(k)["pixels"]
        assert np.array_equal(found, expected)
        quality = float(tf.image.ssim_multiscale(*map(tf.constant, (image, found)), 255))
        assert row["ms_ssim"] == pytest.approx(quality, abs=4e-6)
        error = image.astype(float) - found
        assert row["psnr_db"] == pytest.approx(10 * np.log10(255**2 / (error**2).mean()))
        # What was measured is what the codec decoded, before it was resized.
        assert resized.samples["ms_ssim"][k].as_py() == row["ms_ssim"]
        assert resized.read_sample(k)["pixels"].shape == (40, 48, 3)
    assert resized.header.resize == "exact:40x48"
    made = resized.header.provenance
    assert (made.cpu_isa or "native") == CPU_ISA
    assert resized.header.pixels is not None
    assert resized.header.pixels.latents is not None
    assert resized.header.pixels.latents.provenance.cpu_isa == made.cpu_isa
    assert resized.header.format_version == ("1.2" if made.cpu_isa else "1.1")
    assert small.is_file()
    assert resized.header.layout.shard_rows != store.header.layout.shard_rows
