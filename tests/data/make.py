"""Write the stores of the compatibility suite: python tests/data/make.py FOLDER.

Run once for a format version; what it wrote is kept for ever and never written again.
"""

import sys
from pathlib import Path
from typing import Any

from latentset.datasets.storage.location import Folder
from latentset.datasets.store import open_store
from latentset.datasets.store.convert import convert
from tests.makers.synthetic import write_synthetic_pixels, write_synthetic_store


def main() -> None:
    """Write latents (1.0, and 1.2 for what came with it) and pixels in both formats."""
    folder = Path(sys.argv[1])
    options: dict[str, Any] = {
        "samples": 12,
        "sizes": ((64, 64), (100, 50)),
        "failed": (3,),
        "sigma_hat": True,
        "channels": 6,
        "z_channels": 3,
        "shard_bytes": 1 << 10,
        "seed": 7,
    }
    latents = write_synthetic_store(folder / "latents.zarr", **options)
    exact = write_synthetic_store(
        folder / "exact.zarr", **options, cpu_isa="avx2", h_s_exact_to=127
    )
    pixels = write_synthetic_pixels(
        folder / "pixels.zarr",
        samples=6,
        sizes=((20, 30), (25, 16)),
        decoded=True,
        failed=(3,),
        shard_bytes=1 << 11,
        seed=7,
    )
    for made, name in ((latents, "store"), (exact, "store"), (pixels, "pixels")):
        store = open_store(made)
        target = folder / f"{name}-{store.header.format_version}"
        convert(store, Folder(target.with_suffix(f"{target.suffix}.h5")), "hdf5")
        made.rename(target.with_suffix(f"{target.suffix}.zarr"))


if __name__ == "__main__":
    main()
