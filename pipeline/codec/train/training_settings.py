"""The settings of a codec's training; this module imports no TensorFlow."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainingSettings(BaseModel):
    """Everything that decides what a training run yields.

    A run must be resumed with the same settings, but for those that do not change the result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: tuple[Path, ...] = Field(min_length=1)
    """Folders, searched recursively.  Each is drawn from equally often, whatever its size."""
    output: Path
    checkpoints: Path | None = None
    """Folder of checkpoints; by default beside ``output``, its name + ``.checkpoints``."""
    distortion: Literal["ms-ssim", "mse"] = "ms-ssim"
    """``1 - MS-SSIM``, or the mean squared error of pixels from 0 to 255."""
    lmbda: float = Field(gt=0)
    """Weight of the distortion: loss = bits per pixel + lmbda * distortion."""
    N: int = Field(default=128, ge=1)
    M: int = Field(default=192, ge=1)
    crop: int = Field(default=256, ge=16, multiple_of=16)
    """Side of the square training crops, pixels."""
    batch: int = Field(default=8, ge=1)
    steps: int = Field(ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    final_learning_rate: float = Field(default=1e-6, gt=0)
    """Reached at the last step."""
    decay_from: float = Field(default=0.5, ge=0, lt=1)
    """Fraction of the steps after which the rate falls, on half a cosine of its logarithm."""
    mse_warmup_steps: int = Field(default=0, ge=0)
    """First steps trained on the mean squared error: MS-SSIM alone starts slowly."""
    mse_warmup_lmbda: float = Field(default=0.01, gt=0)
    seed: int = 0
    init_from: Path | None = None
    """Checkpoint folder of another run whose weights to start from; its M may be smaller."""
    checkpoint_interval: int = Field(default=500, ge=1)
    log_interval: int = Field(default=50, ge=1)

    @property
    def checkpoint_folder(self) -> Path:
        """The folder of checkpoints."""
        return self.checkpoints or self.output.with_name(self.output.name + ".checkpoints")
