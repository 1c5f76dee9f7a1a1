"""What a run saves: weights to publish, and the state to resume from. No pickle in either.

Both are safetensors files: a network's tensors and, in the entry ``latentset``, its
:class:`Record`; the classifier's and SGD's (``momentum.…``) and, in ``progress``, the
:class:`Progress`.
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


class StoreRecord(Table):
    """The store that a network was trained from."""

    fingerprint: str
    codec: str
    codec_sha256: str
    """Empty where it has none."""
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
    store: StoreRecord
    epoch: int
    """Epochs that were trained."""
    metrics: dict[str, float]
    """Of that epoch."""


def save_weights(path: Path, tensors: dict[str, Tensor], record: Record) -> None:
    """Write a network's ``state_dict``."""
    save_tensors(path, tensors, {"latentset": record.model_dump_json()})


def load_weights(path: Path) -> tuple[dict[str, Tensor], Record]:
    """Read a network's ``state_dict``, on the CPU, and its record."""
    tensors, texts = load_tensors(path)
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


def load_resnet(path: Path) -> tuple[dict[str, Tensor], Record | None]:
    """Read a ResNet's tensors from a safetensors file, with its record if any, or a .pth."""
    if path.suffix == ".safetensors":
        tensors, texts = load_tensors(path)
        try:
            return tensors, Record.model_validate_json(texts.get("latentset", ""))
        except ValidationError:
            return tensors, None
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
    return loaded, None


def save_state(
    path: Path, classifier: Classifier, optimizer: torch.optim.SGD, progress: Progress
) -> None:
    """Save all that a run resumes from."""
    tensors: dict[str, Tensor] = classifier.state_dict()
    for name, parameter in classifier.network.named_parameters():
        momentum = optimizer.state[parameter].get("momentum_buffer")
        if momentum is not None:  # frozen parameters have none
            tensors[MOMENTUM + name] = momentum
    save_tensors(path, tensors, {"progress": progress.model_dump_json()})


def load_state(path: Path, classifier: Classifier, optimizer: torch.optim.SGD) -> Progress:
    """Load what ``save_state`` saved; refuse the state of another network."""
    tensors, texts = load_tensors(path)
    try:
        progress = Progress.model_validate_json(texts["progress"])
    except (KeyError, ValidationError) as error:
        raise TrainingError(
            f"{path}: not the state of a run, or one of another version; remove it, and the run "
            "starts again"
        ) from error
    own: dict[str, Tensor] = classifier.state_dict()
    saved = {name: tensors[name] for name in tensors if not name.startswith(MOMENTUM)}
    ours, theirs = ({name: x.shape for name, x in each.items()} for each in (own, saved))
    if differ := sorted(dict(ours.items() ^ theirs.items())):
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


def save_tensors(
    path: Path, tensors: dict[str, Tensor], texts: dict[str, str] | None = None
) -> None:
    """Write a safetensors file."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_file(path) as partial:
        save_file(plain, partial, metadata=texts)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file, on the CPU."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (not a dict)
    except FileNotFoundError as error:
        raise TrainingError(f"no weights at {path}: expected a safetensors file") from error
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{path}: expected a safetensors file: {error}") from error
