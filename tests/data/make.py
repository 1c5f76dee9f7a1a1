"""Write the stores of the compatibility suite: python tests/data/make.py FOLDER.

Run once for a format version; what it wrote is kept for ever and never written again.
"""

import sys
from pathlib import Path

from latentset.datasets.store import open_store
from latentset.datasets.store.convert import convert
from latentset.datasets.store.header import FORMAT_VERSION
from latentset.datasets.store.places import Folder
from latentset.datasets.store.synthetic import write_synthetic_store


def main() -> None:
    """Write both formats."""
    folder = Path(sys.argv[1])
    made = write_synthetic_store(
        folder / f"store-{FORMAT_VERSION}.zarr",
        samples=12,
        sizes=((64, 64), (100, 50)),
        failed=(3,),
        sigma_hat=True,
        channels=6,
        z_channels=3,
        shard_bytes=1 << 10,
        seed=7,
    )
    target = Folder(folder / f"store-{FORMAT_VERSION}.h5")
    convert(open_store(made), target, "hdf5", lambda what, done, total: None)


if __name__ == "__main__":
    main()
