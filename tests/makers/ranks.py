"""The processes of a run, as torchrun starts them, forked from one that has imported torch."""

import multiprocessing
import os
import socket
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from rich.console import Console

from latentset.train.recipe.recipe import Recipe
from latentset.train.run.fit import fit

CONTEXT = multiprocessing.get_context("forkserver")


def start_ranks(recipe: Recipe, run: Path, ranks: int) -> list[BaseProcess]:
    """Start training a recipe in several processes; each prints to RUN.RANK."""
    CONTEXT.set_forkserver_preload([__name__])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = recipe.model_dump_json()
    processes: list[BaseProcess] = [
        CONTEXT.Process(target=train_rank, args=(text, run, rank, ranks, port))
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    return processes


def train_rank(text: str, run: Path, rank: int, ranks: int, port: int) -> None:
    """Train as one of several processes."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port}
    os.environ.update({name: str(number) for name, number in numbers.items()})
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    torch.set_num_threads(1)
    with run.with_suffix(f".{rank}").open("w") as out:
        fit(Recipe.model_validate_json(text), run, console=Console(file=out))
