"""What a run leaves behind: weights to share, and the state to go on from. No pickle in either.

Both are safetensors files, which hold named tensors and a table of texts, and whose reader runs no
code of theirs. ``last.safetensors`` and ``best.safetensors`` hold a network's tensors under
PyTorch's names and, as JSON in the table's entry ``latentset``, a :class:`Record` of what they are.
``resume.safetensors`` holds everything that Lightning wants back (weights, momentum, the loops'
counters) in one file, so that it is whole or not there: tensors by number, and in the entry
``state`` the nested structure they belong to, as JSON.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from latentset.datasets.errors import TrainingError, describe_invalid
from latentset.datasets.store import Store
from latentset.train.models.networks import Table
from latentset.train.recipe.recipe import Recipe, codec_name


class StoreRecord(Table):
    """The store that a network was trained from."""

    fingerprint: str
    """Its manifest's fingerprint."""
    codec: str
    """Name of its codec."""
    codec_sha256: str
    """Digest of its codec: latents of another mean something else. Empty where it has none."""
    resize: str
    """Its resize rule."""
    classes: tuple[str, ...]
    """Class names, in the order of the logits."""

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
    """What a file of weights says of itself."""

    recipe: Recipe
    """The resolved recipe."""
    store: StoreRecord
    """What it was trained from."""
    epoch: int
    """Epochs that were trained."""
    metrics: dict[str, float]
    """Figures of that epoch."""


def save_weights(path: Path, tensors: dict[str, Tensor], record: Record) -> None:
    """Write a network's weights.

    Args:
        path: The file; replaced whole where it exists.
        tensors: The network's ``state_dict``.
        record: What they are.
    """
    _save(path, tensors, {"latentset": record.model_dump_json()})


def load_weights(path: Path) -> tuple[dict[str, Tensor], Record]:
    """Read a network's weights.

    Args:
        path: The file.

    Returns:
        The network's ``state_dict`` on the CPU, and what it is.

    Raises:
        TrainingError: There is no such file, or it is not one of a run.
    """
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
    """Read what a file of weights says of itself.

    Args:
        path: The file.

    Returns:
        Its record; None if it is not a file of weights of a run.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return Record.model_validate_json((file.metadata() or {})["latentset"])
    except (SafetensorError, OSError, KeyError, ValidationError):
        return None


def load_resnet(path: Path) -> dict[str, Tensor]:
    """Read the weights of a pixel-domain ResNet, to adopt them.

    Args:
        path: A safetensors file, or a file of ``torch.save`` that holds nothing but tensors.

    Returns:
        Tensors by torchvision's names, on the CPU.

    Raises:
        TrainingError: There is no such file, or it holds something else.
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


class SafetensorsIO(CheckpointIO):
    """Lets Lightning keep its state in safetensors instead of a pickle."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: Dicts, lists, tuples, tensors, numbers, texts, None.
            path: The file; replaced whole where it exists.
            storage_options: Not used.

        Raises:
            TrainingError: Something else is in the checkpoint.
        """
        tensors: dict[str, Tensor] = {}
        state = json.dumps(_encode(checkpoint, tensors))
        _save(Path(path), tensors, {"state": state})

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint.

        Args:
            path: The file.

        Returns:
            What was saved, tensors on the CPU.

        Raises:
            TrainingError: It is no file of this kind.
        """
        tensors, texts = _load(Path(path))
        try:
            state: dict[str, Any] = _decode(json.loads(texts["state"]), tensors)
        except (KeyError, ValueError, TypeError) as error:
            raise TrainingError(f"{path}: not the state of a run: {error}") from error
        return state

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint.

        Args:
            path: The file.
        """
        Path(path).unlink(missing_ok=True)


def _save(path: Path, tensors: dict[str, Tensor], texts: dict[str, str]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, partial, metadata=texts)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (not a dict)
    except FileNotFoundError as error:
        raise TrainingError(f"no weights at {path}: expected a safetensors file") from error
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{path}: expected a safetensors file: {error}") from error


def _encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Put a value into JSON, its tensors aside. Containers become ``[kind, items]``."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Tensor():
            name = str(len(tensors))
            tensors[name] = value
            return ["tensor", name]
        case dict():
            return [
                "dict",
                [[_encode(k, tensors), _encode(v, tensors)] for k, v in value.items()],
            ]
        case tuple() | list():
            kind = "tuple" if isinstance(value, tuple) else "list"
            return [kind, [_encode(item, tensors) for item in value]]
        case _:
            raise TrainingError(
                f"a checkpoint holds a {type(value).__name__}: expected tensors, numbers, texts, "
                "and dicts, lists and tuples of them"
            )


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, list):
        return value
    kind, content = value
    match kind:
        case "tensor":
            return tensors[content]
        case "dict":
            return {_decode(k, tensors): _decode(v, tensors) for k, v in content}
        case "list":
            return [_decode(item, tensors) for item in content]
        case "tuple":
            return tuple(_decode(item, tensors) for item in content)
        case _:
            raise ValueError(f"unknown kind {kind!r}")
