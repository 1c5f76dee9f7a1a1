"""What a run saves: weights to publish, and the state to resume from. No pickle in either.

Both are safetensors files: a network's tensors and, in the entry ``latentset``, its
:class:`Record`; the classifier's and SGD's (``momentum.…``) and, in ``progress``, the
:class:`Progress`.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from latentset.datasets.errors import TrainingError, describe_invalid
from latentset.datasets.storage.atomic import atomic_file
from latentset.datasets.store import Store
from latentset.train.models.networks import Table
from latentset.train.recipe.recipe import Recipe, codec_name
from latentset.train.run.classifier import Classifier
from latentset.train.run.epochs import Progress
from latentset.train.run.run_files import check_regular

MOMENTUM = "momentum."


class StoreRecord(Table):
    """The store that a network was trained from."""

    fingerprint: str
    samples_sha256: str = ""
    """Of ids and splits of the samples that were encoded; empty in runs of earlier versions."""
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
            samples_sha256=digest_samples(store),
            codec=codec_name(header),
            codec_sha256="" if header.codec is None else header.codec.sha256,
            resize=header.resize,
            classes=header.source.classes,
        )


def digest_samples(store: Store) -> str:
    """SHA-256 of ids and splits of the samples that were encoded: a retry may add some."""
    table = store.samples.take(store.indices()).select(["id", "split"])
    return hashlib.sha256(json.dumps(table.to_pydict()).encode()).hexdigest()


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
    _check_finite(path, tensors, "give other weights, or train again")
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
        _check_finite(path, tensors, "give other weights")
        try:
            return tensors, Record.model_validate_json(texts.get("latentset", ""))
        except ValidationError:
            return tensors, None
    check_regular(path)
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
    _check_finite(path, loaded, "give other weights")
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


def load_state(
    path: Path, classifier: Classifier, optimizer: torch.optim.SGD, batches: int
) -> Progress:
    """Load what ``save_state`` saved; TrainingError unless it is that of this run.

    ``batches`` are those of an epoch.
    """
    remedy = "remove it, and the run starts again"
    tensors, texts = load_tensors(path)
    _check_finite(path, tensors, remedy)
    schedule = classifier.recipe.schedule
    progress = _parse_progress(
        path,
        texts,
        remedy,
        lambda found: found.check(schedule.epochs, batches, schedule.accumulate),
    )
    parameters = dict(classifier.network.named_parameters())
    own: dict[str, Tensor] = classifier.state_dict()
    momenta = {MOMENTUM + name: x for name, x in parameters.items() if MOMENTUM + name in tensors}
    _check_same(path, own | momenta, tensors, "of another network; was it copied here", remedy)
    saved = {name: tensors[name] for name in own}
    classifier.load_state_dict(saved)
    for name, parameter in parameters.items():
        if MOMENTUM + name in tensors:
            momentum = torch.empty_like(parameter).copy_(tensors[MOMENTUM + name])
            optimizer.state[parameter]["momentum_buffer"] = momentum.detach()
    return progress


def read_progress(path: Path) -> Progress:
    """Read how far a run was when its state was saved."""
    return _parse_progress(path, load_tensors(path)[1], "remove it, and the run starts again")


def _parse_progress(
    path: Path,
    texts: dict[str, str],
    remedy: str,
    check: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    try:
        progress = Progress.model_validate_json(texts["progress"])
        check(progress)
    except (KeyError, ValueError) as error:
        found = "it has no progress" if isinstance(error, KeyError) else describe_invalid(error)
        raise TrainingError(
            f"{path}: not the state of a run, or one of another version ({found}); {remedy}"
        ) from error
    return progress


def check_weights(path: Path, tensors: dict[str, Tensor], network: nn.Module) -> None:
    """Raise TrainingError unless a file's tensors are those of a network, which may have none."""
    what = "not those of the network in its own record; was it altered"
    _check_same(path, network.state_dict(), tensors, what, "copy it again, or train again")


def _check_same(
    path: Path, own: dict[str, Tensor], found: dict[str, Tensor], what: str, remedy: str
) -> None:
    ours, theirs = ({name: (x.shape, x.dtype) for name, x in e.items()} for e in (own, found))
    if differ := sorted({name for name, _ in ours.items() ^ theirs.items()}):
        raise TrainingError(
            f"{path}: its tensors are {what}? {len(differ)} differ in name, shape or type, "
            f"{differ[0]} first; {remedy}"
        )


def _check_finite(path: Path, tensors: dict[str, Tensor], remedy: str) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise TrainingError(f"{path}: {name} holds values that are not finite; {remedy}")


def save_tensors(
    path: Path, tensors: dict[str, Tensor], texts: dict[str, str] | None = None
) -> None:
    """Write a safetensors file."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_file(path) as partial:
        try:
            save_file(plain, partial, metadata=texts)
        except SafetensorError as error:  # a full disk
            raise TrainingError(f"{path} cannot be written: {error}") from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file, on the CPU."""
    check_regular(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (not a dict)
    except FileNotFoundError as error:
        raise TrainingError(
            f"no weights at {path}: expected a run's folder, or a safetensors file of it"
        ) from error
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{path}: expected a safetensors file: {error}") from error
