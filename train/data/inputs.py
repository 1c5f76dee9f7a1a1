"""From a batch as it is stored to what a network takes, on the device."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as tv

from latentset.datasets.errors import RecipeError, StoreError
from latentset.datasets.store import Header
from latentset.datasets.store.header import ArrayName
from latentset.train.data.batches import Batch
from latentset.train.data.crop import gather, gather_index
from latentset.train.recipe.recipe import Recipe

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue over ImageNet, in [0, 1]."""


class Input(nn.Module, ABC):
    """Makes a network's tensors of a batch."""

    names: tuple[ArrayName, ...]
    """The arrays of the store that are read."""

    def __init__(self, size: int, *, channels_last: bool = False) -> None:
        super().__init__()
        self.size = size
        self.order = torch.channels_last if channels_last else torch.contiguous_format

    @abstractmethod
    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        """A batch on the device -> the network's arguments, float32 (B, channels, S, S) each."""


def make_input(takes: tuple[str, ...], recipe: Recipe, header: Header) -> Input:
    """Choose the input of a network that takes such ``inputs``."""
    channels_last = recipe.device.channels_last
    if takes == ("pixels",):
        return PixelInput(recipe.data.size, recipe.data.resize, channels_last=channels_last)
    if header.codec is None:
        raise RecipeError(f"{recipe.name}: expected a store of latents, got one of pixels")
    if takes == ("y_hat",):
        return YHatInput(recipe.data.size, channels_last=channels_last)
    return LatentInput(recipe.data.size, header, channels_last=channels_last)


class YHatInput(Input):
    """Crops of y_hat: its integers are its values (docs/store-spec.md, 3)."""

    names: tuple[ArrayName, ...] = ("y_hat",)

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        """Make y_hat, float32 (B, C, S, S)."""
        y_hat = gather(batch.rows["y_hat"], gather_index(batch.windows, self.size))
        return (y_hat.to(torch.float32, memory_format=self.order),)


class LatentInput(Input):
    """Crops of y_hat and of sigma_hat = scale_table[scale_index] (docs/store-spec.md, 3)."""

    names: tuple[ArrayName, ...] = ("y_hat", "scale_index")

    def __init__(self, size: int, header: Header, *, channels_last: bool = False) -> None:
        super().__init__(size, channels_last=channels_last)
        if header.codec is None:
            raise StoreError("expected the header of a store of latents, got one of pixels")
        scale_table = header.codec.scale_table
        # An index beyond the table shows as a loss that is not a number, not as a wrong sigma.
        table = torch.full((256,), float("nan"))
        table[: len(scale_table)] = torch.tensor(scale_table)
        self.scale_table = nn.Buffer(table, persistent=False)

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        """Make y_hat and sigma_hat, float32 (B, C, S, S) each."""
        index = gather_index(batch.windows, self.size)
        y_hat = gather(batch.rows["y_hat"], index)
        sigma_hat = self.scale_table[gather(batch.rows["scale_index"], index).to(torch.int32)]
        y_hat = y_hat.to(torch.float32, memory_format=self.order)
        return y_hat, sigma_hat.contiguous(memory_format=self.order)


class PixelInput(Input):
    """Crops of images, as torchvision makes them of images, normalised.

    Source: sections 5.2 and 5.3. Both resizes are bilinear with antialiasing and round to uint8.
    ``resize``: side of the square that an image is resized to first, as boxes are drawn in it.
    """

    names: tuple[ArrayName, ...] = ("pixels",)

    def __init__(
        self, size: int, resize: int | None = None, *, channels_last: bool = False
    ) -> None:
        super().__init__(size, channels_last=channels_last)
        self.resize = resize
        self.mean = nn.Buffer(torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.std = nn.Buffer(torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        """Make images, float32 (B, 3, S, S), normalised."""
        pixels = batch.rows["pixels"]
        crops = []
        for window in batch.windows.tolist():
            first, rows, columns, top, left, height, width, flip = window
            image = pixels[:, first : first + rows * columns].view(3, rows, columns)
            if self.resize and (rows, columns) != (self.resize, self.resize):
                image = tv.resize(image, [self.resize, self.resize], antialias=True)
            crop = tv.resized_crop(
                image, top, left, height, width, [self.size, self.size], antialias=True
            )
            crops.append(crop.flip(2) if flip else crop)
        x = (torch.stack(crops).to(torch.float32) / 255 - self.mean) / self.std
        return (x.contiguous(memory_format=self.order),)
