"""The resize rule of a store: torchvision's ``Resize`` on Pillow images."""

import re
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from latentset.datasets.errors import ImageError, SourceError

MIN_SIDE = 16
"""Pixels. The analysis transform has stride 16: a shorter side fills less than one latent position,
most of which would describe the padding."""

MAX_SIDE = 2**15
"""Pixels. No rule asks for more."""


class ResizeRule(BaseModel):
    """How an image is resized before it is encoded; the same rule for all of a store.

    Written as ``none``, ``short:N`` (the shorter side becomes N, the longer one in proportion,
    rounded down), ``exact:HxW`` or ``exact:N`` (N x N, whatever the proportions). Pixels are those
    of ``torchvision.transforms.Resize`` on a Pillow image: bilinear with antialiasing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["none", "short", "exact"] = "none"
    height: int | None = Field(default=None, ge=MIN_SIDE, le=MAX_SIDE)
    """Height in pixels for "exact", the shorter side for "short", else None."""
    width: int | None = Field(default=None, ge=MIN_SIDE, le=MAX_SIDE)
    """Width in pixels for "exact", else None."""

    @model_validator(mode="after")
    def _check_sides(self) -> Self:
        given = (self.height is not None, self.width is not None)
        if given != (self.kind != "none", self.kind == "exact"):
            raise ValueError(f"{self.kind!r} with height {self.height} and width {self.width}")
        return self

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a rule as it is written on the command line and in a store's attributes.

        Raises:
            SourceError: The text is no rule, or a side is out of range.
        """
        match = re.fullmatch(r"none|short:(\d{1,6})|exact:(\d{1,6})(?:x(\d{1,6}))?", text, re.ASCII)
        if match is None:
            raise SourceError(
                f"resize rule {text!r} is not known: expected none, short:N, exact:HxW or exact:N"
                " (sides in pixels, for instance short:256)"
            )
        short, height, width = match.groups()
        try:
            if short is not None:
                return cls(kind="short", height=int(short))
            if height is not None:
                return cls(kind="exact", height=int(height), width=int(width or height))
        except ValueError as error:
            raise SourceError(
                f"resize rule {text!r}: a side must be between {MIN_SIDE} and {MAX_SIDE} pixels"
            ) from error
        return cls()

    def __str__(self) -> str:
        """Write the rule so that :meth:`parse` reads it back; a square as ``exact:N``."""
        match self.kind:
            case "none":
                return "none"
            case "short":
                return f"short:{self.height}"
            case "exact":
                width = "" if self.width == self.height else f"x{self.width}"
                return f"exact:{self.height}{width}"

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in pixels after resizing.

        Raises:
            ImageError: Status "too_large": so elongated that the longer side explodes.
        """
        if self.height is None:
            return height, width
        if self.width is not None:
            return self.height, self.width
        # As torchvision: int() of the quotient, not rounding.
        longer = int(self.height * max(height, width) / min(height, width))
        new_height, new_width = (longer, self.height) if width <= height else (self.height, longer)
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and new_height * new_width > 2 * limit:
            raise ImageError(
                f"{height}x{width} pixels become {new_height}x{new_width} by {self}:"
                f" more than {2 * limit} pixels",
                "too_large",
            )
        return new_height, new_width

    def apply(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Resize RGB pixels, (height, width, 3); the argument itself if it has that size."""
        height, width = self.size(*image.shape[:2])
        if (height, width) == image.shape[:2]:
            return image
        pillow = Image.fromarray(image)
        return np.array(pillow.resize((width, height), Image.Resampling.BILINEAR))
