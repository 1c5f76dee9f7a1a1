"""A teacher's logits of every sample of a store: written by an evaluation, used in training.

The teacher saw each sample once, not the crops of the student: training needs neither its network
nor its pixels.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from latentset.datasets.errors import TrainingError
from latentset.datasets.storage.atomic import atomic_file
from latentset.datasets.store import Store
from latentset.train.data.split import Split


def write_logits(path: Path, logits: Tensor, store: Store) -> None:
    """Write logits (samples of the store, classes) as float16; NaN = not evaluated."""
    made_of = {"listing_sha256": store.header.source.listing_sha256}
    with atomic_file(path) as partial:
        save_file({"logits": logits.to(torch.float16)}, partial, metadata=made_of)


def read_logits(path: Path, store: Store, split: Split) -> Tensor:
    """Read float32 logits (samples of the store, classes); refuse those of other images."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            logits: Tensor = file.get_tensor("logits").to(torch.float32)
            made_of = (file.metadata() or {}).get("listing_sha256", "")
    except (FileNotFoundError, SafetensorError, OSError) as error:
        raise TrainingError(
            f"{path}: expected a teacher's logits (latentset evaluate RUN STORE --logits FILE): "
            f"{error}"
        ) from error
    source = store.header.source
    if made_of != source.listing_sha256:
        raise TrainingError(
            f"{path} is of other images than {store.location}: expected those of the listing "
            f"{source.listing_sha256[:12]}, got {made_of[:12] or 'none'}; evaluate the teacher on "
            "a store of the same source (ids, paths, labels and splits)"
        )
    expected = (source.samples, len(source.classes))
    if tuple(logits.shape) != expected:
        raise TrainingError(f"{path}: expected logits {expected}, got {tuple(logits.shape)}")
    missing = int((~logits[torch.from_numpy(split.samples)].isfinite().all(dim=1)).sum())
    if missing:
        raise TrainingError(
            f"{path}: no logits of {missing} of {len(split)} samples of split {split.name!r}; "
            "evaluate the teacher on that split too (it evaluates all unless --split is given)"
        )
    return logits
