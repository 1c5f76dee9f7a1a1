"""A trained classifier for use without this library: a torch.export program, or its weights."""

import io
from pathlib import Path

import torch
from torch import Tensor, nn

from latentset.datasets.errors import RecipeError
from latentset.datasets.storage.atomic import write_atomically
from latentset.train.data.inputs import Input, LatentInput, PixelInput
from latentset.train.recipe.recipe import Recipe
from latentset.train.run.checkpoint import save_tensors
from latentset.train.run.evaluate import load_classifier
from latentset.train.run.run_files import check_target

SAMPLE_BATCH = 2


class YHatProgram(nn.Module):
    """From a store's y_hat to logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, y_hat: Tensor) -> Tensor:
        """int16 (B, C, S, S) -> logits, float32 (B, classes)."""
        logits: Tensor = self.network(y_hat.to(torch.float32))
        return logits


class LatentProgram(nn.Module):
    """From a store's integers to logits; scale_table: float32 (256,)."""

    def __init__(self, network: nn.Module, scale_table: Tensor) -> None:
        super().__init__()
        self.network = network
        self.scale_table = nn.Buffer(scale_table)

    def forward(self, y_hat: Tensor, scale_index: Tensor) -> Tensor:
        """int16, uint8 (B, C, S, S) each -> logits, float32 (B, classes)."""
        sigma_hat = self.scale_table[scale_index.to(torch.int64)]
        logits: Tensor = self.network(y_hat.to(torch.float32), sigma_hat)
        return logits


class PixelProgram(nn.Module):
    """From images to logits."""

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.mean, self.std = nn.Buffer(mean), nn.Buffer(std)

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (B, 3, S, S), RGB -> logits, float32 (B, classes)."""
        logits: Tensor = self.network((pixels.to(torch.float32) / 255 - self.mean) / self.std)
        return logits


def export_classifier(checkpoint: Path, store: Path | str, out: Path) -> str:
    """Write ``NAME.pt2`` or ``NAME.safetensors``; return how it is used, in a line."""
    if out.suffix not in (".pt2", ".safetensors"):
        raise RecipeError(f"{out}: expected a name that ends with .pt2 or .safetensors")
    check_target(out)
    classifier, record, checkpoint, *_ = load_classifier(checkpoint, store)
    network = classifier.evaluated.eval()
    if out.suffix == ".safetensors":
        save_tensors(out, network.state_dict())
        return f"{out}: the weights of {checkpoint}, by PyTorch's names"
    program, args = _make_program(classifier.input, network, record.recipe)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(program.eval(), args, dynamic_shapes=[{0: batch} for _ in args])
    program_bytes = io.BytesIO()  # torch aborts the process where a file cannot be written
    torch.export.save(exported, program_bytes)
    write_atomically(out, program_bytes.getvalue())
    taken = ", ".join(f"{str(x.dtype)[6:]} (B, {', '.join(map(str, x.shape[1:]))})" for x in args)
    return f"{out}: torch.export.load(FILE).module()({taken}) -> logits (B, classes)"


def _make_program(
    fed: Input, network: nn.Module, recipe: Recipe
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    # The program and a batch to trace it with.
    size = recipe.data.size
    if isinstance(fed, PixelInput):
        pixels = torch.zeros(SAMPLE_BATCH, 3, size, size, dtype=torch.uint8)
        return PixelProgram(network, fed.mean, fed.std), (pixels,)
    shape = (SAMPLE_BATCH, getattr(recipe.model, "channels", 0), size, size)
    y_hat = torch.zeros(shape, dtype=torch.int16)
    if isinstance(fed, LatentInput):
        scale_index = torch.zeros(shape, dtype=torch.uint8)
        return LatentProgram(network, fed.scale_table), (y_hat, scale_index)
    return YHatProgram(network), (y_hat,)
