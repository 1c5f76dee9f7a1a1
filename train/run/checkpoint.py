"""What a run saves: weights to publish, and the state to resume from. No pickle in either.

Both are safetensors files: named tensors and a table of texts. ``last.safetensors`` and
``best.safetensors`` hold a network's tensors under PyTorch's names and, as JSON in the entry
``latentset``, a :class:`Record`. ``resume.safetensors`` holds the tensors of the classifier
(``network.…``, ``average.…``) and of SGD (``momentum.…``), and in the entry ``progress`` a
:class:`Progress`; it is one file, so that it is complete or missing.
"""

from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from latentset.datasets.errors import TrainingError, describe_invalid
from latentset.datasets.storage.atomic import atomic_file
from latentset.datasets.store import Store
from latentset.train.models.networks import Table
from latentset.train.recipe.recipe import Recipe, codec_name
from latentset.train.run.classifier import Classifier
from latentset.train.run.epochs import Progress

MOMENTUM = "momentum."
"""Prefix of the momentum's names in a saved state."""


class StoreRecord(Table):
    """The store that a network was trained from."""

    fingerprint: str
    codec: str
    codec_sha256: str
    """Latents of another codec mean something else. Empty where it has none."""
    resize: str
    classes: tuple[str, ...]
    """In the order of the logits."""

    @classmethod
    def of(cls, store: Store) -> "StoreRecord":
        """Describe an open store."""
        header = store.header
        return cls(
            fingerprint=store.fingerprint,
            codec=codec_name(header),
            codec_sha256="" if header.codec is None else header.codec.sha256,
            resize=header.resize,
            classes=header.source.classes,
        )


class Record(Table):
    """What a file of weights records about them."""

    recipe: Recipe
    """The resolved recipe."""
    store: StoreRecord
    epoch: int
    """Epochs that were trained."""
    metrics: dict[str, float]
    """Figures of that epoch."""


def save_weights(path: Path, tensors: dict[str, Tensor], record: Record) -> None:
    """Write a network's ``state_dict``."""
    _save(path, tensors, {"latentset": record.model_dump_json()})


def load_weights(path: Path) -> tuple[dict[str, Tensor], Record]:
    """Read a network's ``state_dict``, on the CPU, and its record."""
    tensors, texts = _load(path)
    try:
        return tensors, Record.model_validate_json(texts["latentset"])
    except KeyError as error:
        raise TrainingError(
            f"{path}: expected weights of a LatentSet run (best.safetensors, last.safetensors), "
            f"got a safetensors file without the entry 'latentset' (it has {sorted(texts)})"
        ) from error
    except ValidationError as error:
        raise TrainingError(
            f"{path}: its record cannot be read; was it written by another version? "
            f"{describe_invalid(error)}"
        ) from error


def read_record(path: Path) -> Record | None:
    """Read the record alone; None if the file is not one of a run's weights."""
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return Record.model_validate_json((file.metadata() or {})["latentset"])
    except (SafetensorError, OSError, KeyError, ValidationError):
        return None


def load_resnet(path: Path) -> dict[str, Tensor]:
    """Read a pixel-domain ResNet's tensors by torchvision's names, on the CPU.

    Takes a safetensors file, or a file of ``torch.save`` that holds nothing but tensors.
    """
    if path.suffix == ".safetensors":
        return _load(path)[0]
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(f"no weights at {path} (weights.adopt)") from error
    except Exception as error:  # torch's readers of its old formats raise anything
        raise TrainingError(
            f"{path}: expected a safetensors file, or a .pth that holds tensors alone: {error}"
        ) from error
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()
    ):
        raise TrainingError(
            f"{path}: expected a table of tensors (a state_dict), got {type(loaded).__name__}; "
            "save model.state_dict()"
        )
    return loaded


def save_state(
    path: Path, classifier: Classifier, optimizer: torch.optim.SGD, progress: Progress
) -> None:
    """Save all that a run resumes from. The learning rates follow from the recipe."""
    tensors: dict[str, Tensor] = classifier.state_dict()
    for name, parameter in classifier.network.named_parameters():
        momentum = optimizer.state[parameter].get("momentum_buffer")
        if momentum is not None:  # frozen parameters have none
            tensors[MOMENTUM + name] = momentum
    _save(path, tensors, {"progress": progress.model_dump_json()})


def load_state(path: Path, classifier: Classifier, optimizer: torch.optim.SGD) -> Progress:
    """Load what ``save_state`` saved; refuse the state of another network."""
    tensors, _ = _load(path)
    progress = read_progress(path)
    own = classifier.state_dict()
    saved = {name: tensors[name] for name in tensors if not name.startswith(MOMENTUM)}
    differ = sorted(
        name
        for name in saved.keys() | own.keys()
        if name not in saved or name not in own or saved[name].shape != own[name].shape
    )
    if differ:
        raise TrainingError(
            f"{path} is of another network: {len(differ)} tensors differ in name or shape, "
            f"{differ[0]} first; was it copied here? Remove it, and the run starts again"
        )
    classifier.load_state_dict(saved)
    for name, parameter in classifier.network.named_parameters():
        if MOMENTUM + name in tensors:
            momentum = torch.empty_like(parameter).copy_(tensors[MOMENTUM + name])
            optimizer.state[parameter]["momentum_buffer"] = momentum.detach()
    return progress


def read_progress(path: Path) -> Progress:
    """Read how far a run was when its state was saved."""
    try:
        return Progress.model_validate_json(_load(path)[1]["progress"])
    except (KeyError, ValidationError) as error:
        raise TrainingError(
            f"{path}: not the state of a run, or one of another version; remove it, and the run "
            "starts again"
        ) from error


def _save(path: Path, tensors: dict[str, Tensor], texts: dict[str, str]) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_file(path) as partial:
        save_file(plain, partial, metadata=texts)


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (not a dict)
    except FileNotFoundError as error:
        raise TrainingError(f"no weights at {path}: expected a safetensors file") from error
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{path}: expected a safetensors file: {error}") from error
