"""Which of several processes this is, as torchrun tells each of them."""

import os
from dataclasses import dataclass

from latentset.datasets.errors import RecipeError
from latentset.train.recipe.recipe import Recipe


@dataclass(frozen=True)
class Ranks:
    """The processes of a run: one a GPU, or one in all."""

    rank: int = 0
    """This process, from 0."""
    ranks: int = 1
    """All processes."""
    ranks_a_node: int = 1
    """Processes on this machine."""

    @classmethod
    def of_environment(cls) -> "Ranks":
        """Read the variables that torchrun sets; one process where they are not set."""
        ranks = int(os.environ.get("WORLD_SIZE", "1"))
        return cls(
            rank=int(os.environ.get("RANK", "0")),
            ranks=ranks,
            ranks_a_node=int(os.environ.get("LOCAL_WORLD_SIZE", str(ranks))),
        )

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def check(self, recipe: Recipe) -> None:
        """Refuse a batch that cannot be shared out.

        Args:
            recipe: The recipe.

        Raises:
            RecipeError: ``data.batch_size`` is no multiple of ranks times parts, or leaves mixup
                nothing to mix.
        """
        shares = self.ranks * recipe.schedule.accumulate
        if recipe.data.batch_size % shares:
            raise RecipeError(
                f"data.batch_size: expected a multiple of {shares} ({self.ranks} processes, "
                f"schedule.accumulate={recipe.schedule.accumulate}), got {recipe.data.batch_size}; "
                "every process must get the same number of samples"
            )
        if recipe.schedule.mixup and recipe.data.batch_size == shares:
            raise RecipeError(
                f"schedule.mixup: expected at least 2 samples in each of {shares} parts of a "
                f"batch, got 1 (data.batch_size={recipe.data.batch_size}): each is mixed with "
                "another of its part; raise data.batch_size, or set schedule.mixup=0"
            )
