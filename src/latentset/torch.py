"""A store's latents for a training loop of your own, in PyTorch (docs/python.md).

:class:`LatentBatches`, and :class:`LatentDataset` with :func:`collate`, give batches of integers as
they are stored; :class:`LatentInput` makes tensors of one size of them, on the device.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, ValidationError
from torch import distributed
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from latentset.datasets.errors import StoreError, TrainingError, describe_invalid
from latentset.datasets.storage.location import Location
from latentset.datasets.store import Store, open_store
from latentset.datasets.store.header import ArrayName, Frozen
from latentset.train.data.batches import WHOLE_GRID, Batch, LatentReader, make_windows
from latentset.train.data.crop import CentralCrop, Crop, RandomCrop, WholeGrid
from latentset.train.data.inputs import LatentInput, PixelInput, YHatInput
from latentset.train.data.order import batch_ends
from latentset.train.data.split import select_split

__all__ = [
    "Batch",
    "CentralCrop",
    "LatentBatches",
    "LatentDataset",
    "LatentInput",
    "PixelInput",
    "RandomCrop",
    "WholeGrid",
    "YHatInput",
    "collate",
]

_ARRAYS: tuple[ArrayName, ...] = ("y_hat", "scale_index", "pixels")


class _State(Frozen, strict=True):
    """What an epoch resumes from."""

    version: Literal[1] = 1
    fingerprint: str
    split: str
    samples: NonNegativeInt
    """In the split."""
    shuffle: bool
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    epoch: NonNegativeInt
    position: NonNegativeInt
    """Samples of the epoch that all processes together have read."""


class LatentBatches(IterableDataset[Batch]):
    """The batches of one split, read ahead by threads; iterate once for each epoch.

    ``batch_size`` is that of the whole batch: each of ``world_size`` processes gets its part of it.
    So an epoch may resume in another number of processes. Rank and world size are by default those
    of ``torch.distributed``, where it is initialised.

    Args:
        store: An open store, or its folder, file or URL.
        split: Of the samples table.
        batch_size: Samples of a batch, over all processes.
        shuffle: True random order, a function of seed and epoch; else the table's.
        seed: Of order and random crops.
        drop_last: Leave out a smaller last batch.
        crop: The part of each grid that :class:`LatentInput` shows.
        arrays: By default ``y_hat`` and ``scale_index``, or ``pixels``.
        resize: Of pixels: side of the square that they are resized to before the crop, as in
            :class:`PixelInput`.
        read_ahead: Batches in memory.
        pin_memory: For a faster copy to a GPU.
        rank: Of this process.
        world_size: Number of processes.
    """

    def __init__(
        self,
        store: Store | Location | Path | str,
        *,
        split: str = "train",
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        crop: Crop = WHOLE_GRID,
        arrays: Sequence[str] | None = None,
        resize: int | None = None,
        read_ahead: int = 4,
        pin_memory: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self.store = store if isinstance(store, Store) else open_store(store)
        self.epoch = 0
        """The epoch that is read next, or now; it increases at the end of each."""
        connected = distributed.is_available() and distributed.is_initialized()
        if rank is None:
            rank = distributed.get_rank() if connected else 0
        if world_size is None:
            world_size = distributed.get_world_size() if connected else 1
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed: expected 0 to 2**63 - 1, got {seed}")
        if not 0 <= rank < world_size <= batch_size:
            raise ValueError(
                "expected 0 <= rank < world_size <= batch_size (that of the whole batch), got "
                f"rank {rank}, world_size {world_size}, batch_size {batch_size}"
            )
        self._batch_size, self._drop_last, self._world_size = batch_size, drop_last, world_size
        self._shuffle, self._seed = shuffle, seed
        self._split = select_split(self.store, split)
        self._reader = LatentReader(
            self.store,
            self._split,
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            drop_last=drop_last,
            crop=crop,
            resize=resize,
            read_ahead=read_ahead,
            rank=rank,
            world_size=world_size,
            pin_memory=pin_memory,
            names=_choose_arrays(self.store, arrays),
        )
        self._position = 0  # in the epoch
        self._start = 0  # where the next iteration starts

    def __len__(self) -> int:
        """Batches of a whole epoch, in this process."""
        return len(self._reader)

    def __iter__(self) -> Iterator[Batch]:
        """Read the epoch: from its start, or once from where the loaded state was saved."""
        if get_worker_info() is not None:
            raise TrainingError(
                "LatentBatches reads ahead with threads of its own: expected num_workers=0 and "
                "batch_size=None in the DataLoader, got a worker process"
            )
        start, self._start = self._start, 0
        self._position = start
        ends = batch_ends(
            len(self._split) - start,
            self._batch_size,
            drop_last=self._drop_last,
            world_size=self._world_size,
        )
        with closing(self._reader.batches(self.epoch, first_sample=start)) as batches:
            # At the end of a resumed epoch this rank may have one batch less (docs/python.md).
            for batch, end in zip(batches, ends, strict=False):
                self._position = start + end
                yield batch
        self.epoch, self._position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Where reading is, after the batch that was yielded last: plain numbers, for JSON."""
        return self._state().model_dump()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration resume from a state, also of another number of processes.

        Raises:
            TrainingError: The state is of another store, split, order or version, or is damaged.
        """
        try:
            found = _State.model_validate(state)
        except ValidationError as error:
            raise TrainingError(
                f"not a state of LatentBatches, or one of another version: "
                f"{describe_invalid(error)}; start the epoch again"
            ) from error
        own = self._state()
        for name in ("fingerprint", "split", "samples", "shuffle", "seed"):
            expected, got = getattr(own, name), getattr(found, name)
            if expected != got:
                raise TrainingError(
                    f"{self.store.location}: the state was saved with another {name}: expected "
                    f"{expected}, got {got}; open the store, split and order that it was saved "
                    "with, or start the epoch again"
                )
        if found.position > found.samples:
            raise TrainingError(
                f"position: expected at most {found.samples}, the samples of split "
                f"{found.split!r}, got {found.position}; start the epoch again"
            )
        self.epoch, self._position, self._start = found.epoch, found.position, found.position

    def _state(self) -> _State:
        return _State(
            fingerprint=self.store.fingerprint,
            split=self._split.name,
            samples=len(self._split),
            shuffle=self._shuffle,
            seed=self._seed,
            epoch=self.epoch,
            position=self._position,
        )


class LatentDataset(Dataset[dict[str, Any]]):
    """The samples of one split by number, for torch's DataLoader with workers, forked or spawned.

    A sample is a dict: by array, integers (C, h, w) as they are stored; ``label``; ``sample``, its
    row in the samples table. Use :func:`collate` where sizes differ.

    Args:
        store: An open store, or its folder, file or URL.
        split: Of the samples table.
        arrays: By default ``y_hat`` and ``scale_index``, or ``pixels``.
    """

    def __init__(
        self,
        store: Store | Location | Path | str,
        *,
        split: str = "train",
        arrays: Sequence[str] | None = None,
    ) -> None:
        self.store = store if isinstance(store, Store) else open_store(store)
        self._arrays = _choose_arrays(self.store, arrays)
        self._split = select_split(self.store, split)

    def __len__(self) -> int:
        """Samples that were encoded."""
        return len(self._split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one sample."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Read many samples at once, as a DataLoader does."""
        rows = self._split.samples[np.asarray(indices)]
        labels = self._split.labels[np.asarray(indices)]
        samples = [
            {"label": label, "sample": row}
            for label, row in zip(labels.tolist(), rows.tolist(), strict=True)
        ]
        for name in self._arrays:
            for sample, grid in zip(samples, self.store.read_stored(rows, name), strict=True):
                sample[name] = torch.from_numpy(grid).permute(2, 0, 1)
        return samples


def collate(
    samples: Sequence[dict[str, Any]], crop: Crop = WHOLE_GRID, resize: int | None = None
) -> Batch:
    """Make a batch of samples of any sizes; ``crop`` and ``resize`` are as of LatentBatches.

    Random crops depend on torch's seed. Set them by ``functools.partial``.
    """
    names = [name for name in _ARRAYS if name in samples[0]]
    sizes = np.array([sample[names[0]].shape[1:] for sample in samples])
    numbers = np.array([sample["sample"] for sample in samples])
    seed = int(torch.randint(2**62, ())) if isinstance(crop, RandomCrop) else 0
    heights, widths = sizes.T if resize is None else np.full_like(sizes.T, resize)
    boxes = crop.boxes(heights, widths, numbers, seed=seed, epoch=0)
    return Batch(
        {name: torch.cat([s[name].flatten(1) for s in samples], dim=1) for name in names},
        make_windows(sizes[:, 0], sizes[:, 1], boxes),
        torch.tensor([sample["label"] for sample in samples]),
        torch.from_numpy(numbers),
    )


def _choose_arrays(store: Store, arrays: Sequence[str] | None) -> tuple[ArrayName, ...]:
    there = [name for name in _ARRAYS if name in store.header.arrays]
    if arrays is not None and (unknown := [name for name in arrays if name not in there]):
        raise StoreError(
            f"{store.location}: arrays: expected some of {', '.join(there)}, got {unknown[0]!r}"
        )
    return tuple(name for name in there if arrays is None or name in arrays)
