"""The same latents in other libraries' formats, each as its documentation advises.

All get samples of ``y_hat`` int16 (C, h, w), ``scale_index`` uint8 (C, h, w) and a label, channel
by channel as our chunks are, and give shuffled batches of 64 through two worker processes.

============  =====================================================================================
webdataset    tar shards of ``.npy`` members; ``shardshuffle``, then a buffer of 1,000 samples;
              batched in the workers (WebLoader). Compressed: members ``.npy.gz``, which its writer
              and its decoder know.
mds           MosaicML streaming, shards of 64 MiB, encoding ``ndarray``; ``shuffle=True``.
              Compressed: ``zstd``. A shard is decompressed into a local copy when it is first
              needed: only the first epoch reads compressed bytes, and both copies take disk from
              then on. So each epoch that is timed here begins with an empty local copy.
litdata       chunks of 64 MB from ``optimize``, StreamingDataset and StreamingDataLoader.
              Compressed: ``zstd``, by default 256 samples a frame within a chunk.
huggingface   ``Array3D`` features, saved as Arrow files and mapped into memory,
              ``with_format("torch")`` and a shuffling DataLoader. Compressed: Parquet with
              zstd, written by pyarrow (``to_parquet`` leaves nested columns as they are), streamed,
              ``shuffle`` with a buffer of 1,000 samples; without streaming it would be turned into
              Arrow files first.
============  =====================================================================================
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import measure
import numpy as np

BATCH = 64
WORKERS = 2
BUFFER = 1000
"""Samples of a shuffle buffer: the examples of WebDataset's and Hugging Face's documentation."""

FORMATS = ("latentset", "webdataset", "mds", "litdata", "huggingface")

HUGGINGFACE = "datasets"
"""By name: type checkers would find this project's folder of the same name."""

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of the libraries' workers

Samples = Iterator[dict[str, Any]]


def samples_of(folder: Path) -> Samples:
    """Yield the samples that ``reader_formats.py`` has put down as plain arrays."""
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("y_hat", "scale_index")
    }
    for k, label in enumerate(np.load(folder / "label.npy").tolist()):
        yield {"label": label, **{name: np.array(array[k]) for name, array in arrays.items()}}


def write(number: int, name: str, compressed: bool, plain: str, target: str) -> measure.Works:
    """Write a data set; runs in a process of its own and returns no work."""
    folder = Path(target)
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        _WRITERS[name](Path(plain), partial, compressed)
        partial.rename(folder)
    return {}


def read(number: int, name: str, compressed: bool, target: str) -> measure.Works:
    """Open a data set.

    Returns:
        ``epoch``: reads one, and says how many samples that was.
    """
    return {"epoch": _READERS[name](Path(target), compressed)}


def _write_webdataset(plain: Path, target: Path, compressed: bool) -> None:
    import webdataset as wds

    target.mkdir()
    end = ".npy.gz" if compressed else ".npy"
    with wds.ShardWriter(f"{target}/%06d.tar", maxsize=32 << 20, verbose=0) as writer:
        for k, sample in enumerate(samples_of(plain)):
            arrays = {f"{key}{end}": sample[key] for key in ("y_hat", "scale_index")}
            writer.write({"__key__": f"{k:08d}", "label.cls": sample["label"], **arrays})


def _read_webdataset(target: Path, compressed: bool) -> measure.Work:
    import webdataset as wds

    end = ".npy.gz" if compressed else ".npy"
    shards = [str(path) for path in sorted(target.glob("*.tar"))]
    data = (
        wds.WebDataset(shards, shardshuffle=len(shards))
        .shuffle(BUFFER)
        .decode()
        .to_tuple(f"y_hat{end}", f"scale_index{end}", "label.cls")
        .batched(BATCH, partial=False)
    )
    loader = wds.WebLoader(data, batch_size=None, num_workers=WORKERS, persistent_workers=True)
    return lambda: sum(len(labels) for _, _, labels in loader)


def _write_mds(plain: Path, target: Path, compressed: bool) -> None:
    from streaming import MDSWriter

    columns = {
        "y_hat": "ndarray:int16:192,16,16",
        "scale_index": "ndarray:uint8:192,16,16",
        "label": "int",
    }
    compression = "zstd" if compressed else None
    with MDSWriter(out=str(target), columns=columns, compression=compression) as writer:
        for sample in samples_of(plain):
            writer.write(sample)


def _read_mds(target: Path, compressed: bool) -> measure.Work:
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    def load(keep: bool, **where: Any) -> Any:
        data = StreamingDataset(**where, shuffle=True, batch_size=BATCH)
        return DataLoader(data, BATCH, num_workers=WORKERS, drop_last=True, persistent_workers=keep)

    if not compressed:
        loader = load(True, local=str(target))
        return lambda: sum(len(batch["label"]) for batch in loader)

    def first_epoch() -> tuple[int, float]:
        with tempfile.TemporaryDirectory() as cache:
            fresh = load(False, remote=str(target), local=cache)
            return _timed(lambda: sum(len(batch["label"]) for batch in fresh))

    return first_epoch


def _write_litdata(plain: Path, target: Path, compressed: bool) -> None:
    import litdata

    samples = list(samples_of(plain))
    litdata.optimize(
        fn=samples.__getitem__,
        inputs=list(range(len(samples))),
        output_dir=str(target),
        chunk_bytes="64MB",
        num_workers=1,
        compression="zstd" if compressed else None,
        verbose=False,
    )


def _read_litdata(target: Path, compressed: bool) -> measure.Work:
    import litdata

    data = litdata.StreamingDataset(str(target), shuffle=True, drop_last=True)
    loader = litdata.StreamingDataLoader(
        data, batch_size=BATCH, num_workers=WORKERS, drop_last=True, persistent_workers=True
    )
    return lambda: sum(len(batch["label"]) for batch in loader)


def _write_huggingface(plain: Path, target: Path, compressed: bool) -> None:
    from pyarrow import parquet

    library = import_module(HUGGINGFACE)

    features = library.Features(
        y_hat=library.Array3D((192, 16, 16), "int16"),
        scale_index=library.Array3D((192, 16, 16), "uint8"),
        label=library.Value("int64"),
    )
    with tempfile.TemporaryDirectory() as cache:
        data = library.Dataset.from_generator(
            samples_of, features=features, gen_kwargs={"folder": plain}, cache_dir=cache
        )
        if not compressed:
            data.save_to_disk(str(target), max_shard_size="64MB")
            return
        target.mkdir()
        shards = 8
        for k in range(shards):
            part = data.shard(shards, k, contiguous=True).with_format("arrow")[:]
            parquet.write_table(
                part, target / f"{k:03d}.parquet", compression="zstd", row_group_size=BATCH
            )


def _read_huggingface(target: Path, compressed: bool) -> measure.Work:
    from torch.utils.data import DataLoader

    library = import_module(HUGGINGFACE)

    if not compressed:
        mapped = library.load_from_disk(str(target)).with_format("torch")
        loader = DataLoader(
            mapped,
            BATCH,
            shuffle=True,
            num_workers=WORKERS,
            drop_last=True,
            persistent_workers=True,
        )
        return lambda: sum(len(batch["label"]) for batch in loader)
    files = [str(path) for path in sorted(target.glob("*.parquet"))]
    streamed = library.load_dataset("parquet", data_files=files, split="train", streaming=True)
    # Of the 10 input shards that it reads at once if not told, it makes one: one worker would idle.
    inputs = len(files) // WORKERS
    streamed = streamed.shuffle(seed=0, buffer_size=BUFFER, max_buffer_input_shards=inputs)
    streamed = streamed.with_format("torch")
    loader = DataLoader(
        streamed, BATCH, num_workers=WORKERS, drop_last=True, persistent_workers=True
    )
    return lambda: sum(len(batch["label"]) for batch in loader)


def _read_latentset(target: Path, compressed: bool) -> measure.Work:
    from latentset.datasets.store import open_store
    from latentset.train.data.batches import LatentReader
    from latentset.train.data.crop import RandomCrop
    from latentset.train.data.split import select_split, split_names

    store = open_store(target)
    split = select_split(store, split_names(store)[0])
    reader = LatentReader(
        store, split, batch_size=BATCH, shuffle=True, drop_last=True, crop=RandomCrop()
    )
    epochs = count()
    return lambda: sum(len(batch.labels) for batch in reader.batches(next(epochs)))


def _timed(epoch: Callable[[], int]) -> tuple[int, float]:
    start = time.perf_counter()
    samples = epoch()
    return samples, time.perf_counter() - start


_WRITERS: dict[str, Callable[[Path, Path, bool], None]] = {
    "webdataset": _write_webdataset,
    "mds": _write_mds,
    "litdata": _write_litdata,
    "huggingface": _write_huggingface,
}

_READERS: dict[str, Callable[[Path, bool], measure.Work]] = {
    "latentset": _read_latentset,
    "webdataset": _read_webdataset,
    "mds": _read_mds,
    "litdata": _read_litdata,
    "huggingface": _read_huggingface,
}
