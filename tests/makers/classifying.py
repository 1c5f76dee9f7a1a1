"""What classifiers do with a store, without a terminal."""

from pathlib import Path

import torch
from rich.console import Console

from latentset.datasets.errors import LatentSetError
from latentset.paper.recipes import load_recipe
from latentset.train.run.evaluate import evaluate_checkpoint
from latentset.train.run.fit import fit
from latentset.train.run.prediction import write_predictions

SETTINGS = (
    *("schedule.epochs=1", "schedule.decay_epochs=[]", "model.width=2"),
    *("data.batch_size=4", "data.size=8", "device.accelerator=cpu"),
)


def train_on(store: Path, run: Path, recipe: str) -> str:
    """Train for one epoch with a small network of a recipe that ships."""
    loaded = load_recipe(recipe, [*SETTINGS, f"data.store={store}"])
    fit(loaded, run, console=Console(quiet=True))
    return "trained"


def classify(recipe: str, known: Path, store: Path, scratch: Path) -> str:
    """Train on a store, and use there a run of another store; returns what came of the training."""
    torch.set_num_threads(1)

    def train() -> str:
        return train_on(store, scratch / "run", recipe)

    def evaluate() -> str:
        matrix, logits = scratch / "matrix.csv", scratch / "logits.safetensors"
        evaluate_checkpoint(known, store, confusion=matrix, logits=logits)
        return "evaluated"

    def predict() -> str:
        write_predictions(known, store, scratch / "predictions.csv", top=3)
        return "predicted"

    outcomes = []
    for command in (train, evaluate, predict):
        try:
            outcomes.append(command())
        except LatentSetError as error:
            outcomes.append(type(error).__name__)
    return outcomes[0]
