"""How much memory the training reader takes over several epochs.

    python benchmarks/reader_memory.py [--store STORE] [--samples 8000] [--epochs 6]

Claim: in batches of 64 samples of 192x16x16, y_hat + scale_index, memory is flat over epochs and
under 1 GiB, PyTorch's own import included.

The store is written by another process, so that the memory of this one is the reader's alone.
Flat: the greatest resident memory of the last epoch is at most 2 % above that of the second.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import measure

BATCH = 64

WRITE = """
import sys
from pathlib import Path
sys.path.append(sys.argv[3])
from tests.makers.synthetic import write_synthetic_store
write_synthetic_store(Path(sys.argv[1]), samples=int(sys.argv[2]), sizes=((256, 256),),
                      splits=("train",), channels=192, z_channels=8, shard_bytes=32 << 20)
"""


def resident_mib() -> float:
    """Resident memory of this process, MiB."""
    status = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", type=Path, help="a store to read instead of one made up")
    parser.add_argument("--samples", type=int, default=8000, help="of the store made up")
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    measure.describe_machine()
    print(f"{'the interpreter':44s} {resident_mib():8,.0f} MiB")
    import torch  # noqa: F401 - its share is shown

    torch_mib = resident_mib()
    print(f"{'with torch imported':44s} {torch_mib:8,.0f} MiB")
    from latentset.datasets.store import open_store
    from latentset.train.data.batches import LatentReader
    from latentset.train.data.crop import RandomCrop
    from latentset.train.data.split import select_split, split_names

    print(f"{'with the reader imported':44s} {resident_mib():8,.0f} MiB")
    with tempfile.TemporaryDirectory() as folder:
        path = options.store or Path(folder) / "store.zarr"
        if options.store is None:
            command = [sys.executable, "-c", WRITE, str(path), str(options.samples), sys.path[-1]]
            subprocess.run(command, check=True)
        store = open_store(path)
        split = select_split(store, split_names(store)[0])
        reader = LatentReader(
            store, split, batch_size=BATCH, shuffle=True, drop_last=True, crop=RandomCrop()
        )
        print(f"{f'with a store of {len(split)} samples opened':44s} {resident_mib():8,.0f} MiB")
        highest = []
        for epoch in range(options.epochs):
            highest.append(max(resident_mib() for _ in reader.batches(epoch)))
            print(f"{f'highest in epoch {epoch + 1}':44s} {highest[-1]:8,.0f} MiB")
    growth = highest[-1] / highest[1]
    name = "last epoch against the second"
    print(f"{name:44s} {growth:8.3f}{measure.judge(growth, 1.02, 'at most')}")
    bar = measure.judge(max(highest), 1024, "at most")
    print(f"{'highest of all':44s} {max(highest):8,.0f} MiB{bar}")
    print(f"{'of which beyond torch':44s} {max(highest) - torch_mib:8,.0f} MiB")


if __name__ == "__main__":
    main()
