"""Processes that read an epoch together, stop and resume, each forked from one with torch."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

from torch import distributed

from latentset.torch import LatentBatches

CONTEXT = multiprocessing.get_context("forkserver")


def read_together(
    store: Path, folder: Path, ranks: int, steps: int | None, options: dict[str, Any]
) -> list[int]:
    """Read ``steps`` batches (None = to the end of the epoch) in processes connected by gloo.

    They resume from the state in ``folder``, if any, and save theirs there. Returns the samples.
    """
    CONTEXT.set_forkserver_preload(
        [__name__, "pandas"]
    )  # Arrow imports pandas when it is first used
    (folder / "meeting").unlink(missing_ok=True)
    processes = [
        CONTEXT.Process(target=_read, args=(store, folder, rank, ranks, steps, options))
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * ranks
    found = [json.loads((folder / f"samples-{rank}.json").read_text()) for rank in range(ranks)]
    return [sample for samples in found for sample in samples]


def _read(
    store: Path, folder: Path, rank: int, ranks: int, steps: int | None, options: dict[str, Any]
) -> None:
    meeting = f"file://{folder / 'meeting'}"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks)
    batches = LatentBatches(store, **options)
    state = folder / "state.json"
    if state.exists():
        batches.load_state_dict(json.loads(state.read_text()))
    distributed.barrier()  # all have read it
    samples: list[int] = []
    for step, batch in enumerate(batches, 1):
        samples += batch.samples.tolist()
        if step == steps:
            break
    (folder / f"samples-{rank}.json").write_text(json.dumps(samples))
    if rank == 0:
        state.write_text(json.dumps(batches.state_dict()))
    distributed.barrier()
    distributed.destroy_process_group()
