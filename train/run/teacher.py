"""A teacher's logits of every sample of a store: written by an evaluation, used in training."""

from pathlib import Path

import torch
from torch import Tensor

from latentset.datasets.errors import TrainingError
from latentset.datasets.store import Store
from latentset.train.data.split import Split
from latentset.train.run.checkpoint import load_tensors, save_tensors


def write_logits(path: Path, logits: Tensor, store: Store) -> None:
    """Write logits (samples of the store, classes) as float16; NaN = not evaluated."""
    made_of = {"listing_sha256": store.header.source.listing_sha256}
    save_tensors(path, {"logits": logits.to(torch.float16)}, made_of)


def read_logits(path: Path, store: Store, split: Split) -> Tensor:
    """Read float32 logits (samples of the store, classes); refuse those of other images."""
    try:
        tensors, texts = load_tensors(path)
        logits, made_of = tensors["logits"].float(), texts.get("listing_sha256", "")
    except (TrainingError, KeyError) as error:
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
