"""How many times as fast the training reader is as reading images.

    python benchmarks/reader_imagefolder.py FOLDER [--repeats 5]

FOLDER is what make_store.py made. Claim: at least 6 times as fast as torchvision's ImageFolder with
JPEG decoding (Pillow) and RandomResizedCrop(224), batches of 64 from a DataLoader with two workers,
on the same images at 256x256; both shuffled anew every epoch.

The reader gives what it gives a training step: y_hat and scale_index of whole samples, labels, and
random boxes, which the device cuts out with one gather. To show what that leaves to the device,
the second ratio does it on the host's two cores: gather to 28x28 and sigma_hat, as float32.
"""

import argparse
from itertools import count
from pathlib import Path

import measure
import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from latentset.datasets.store import open_store
from latentset.train.data.batches import LatentReader
from latentset.train.data.crop import RandomCrop, gather, gather_index
from latentset.train.data.split import select_split, split_names

BATCH = 64
SIZE = 28
"""Side of the network's input in the paper."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="made by make_store.py")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    measure.describe_machine()
    store = open_store(options.folder / "store.zarr")
    split = select_split(store, split_names(store)[0])
    reader = LatentReader(
        store, split, batch_size=BATCH, shuffle=True, drop_last=True, crop=RandomCrop()
    )
    table = torch.zeros(256)
    if store.header.codec is not None:
        table[: len(store.header.codec.scale_table)] = torch.tensor(store.header.codec.scale_table)
    epochs = count()
    images = ImageFolder(
        str(options.folder / "images"),
        transforms.Compose([transforms.RandomResizedCrop(224), transforms.ToTensor()]),
    )
    loader = DataLoader(
        images, BATCH, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True
    )

    def read() -> int:
        return sum(len(batch.labels) for batch in reader.batches(next(epochs)))

    def read_and_cut() -> int:
        samples = 0
        for batch in reader.batches(next(epochs)):
            index = gather_index(batch.windows, SIZE)
            y_hat = gather(batch.rows["y_hat"], index).to(torch.float32)
            scale_index = gather(batch.rows["scale_index"], index)
            samples += len(y_hat) if len(table[scale_index.to(torch.int32)]) else 0
        return samples

    def decode() -> int:
        return sum(len(labels) for _, labels in loader)

    works = {
        "training reader": lambda: measure.rate(read, 2.0),
        "training reader, crops cut on the host": lambda: measure.rate(read_and_cut, 2.0),
        "ImageFolder, two workers": lambda: measure.rate(decode, 2.0),
    }
    found = measure.in_turn(works, options.repeats, "samples/s")
    reading, cutting, decoding = found.values()
    measure.ratio("training reader against ImageFolder", reading, decoding, 6)
    measure.ratio("the same with crops cut on the host", cutting, decoding)


if __name__ == "__main__":
    main()
