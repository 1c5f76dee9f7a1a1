"""A queueing system of a few lines: by the name it is run as, it submits or cancels a job.

Linked as sbatch.py, qsub.py, bsub.py; scancel.py, qdel.py, bkill.py. A job really runs, as a
process group of this machine. The folder LATENTSET_STANDIN_QUEUE keeps each job's script and
output. LATENTSET_STANDIN_QUEUE_MODE is ``refuse`` (no job is taken) or ``hold`` (none begins).
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

SUBMIT = ("sbatch", "qsub", "bsub")
CANCEL = ("scancel", "qdel", "bkill")


def submit(folder: Path, script: str) -> int:
    mode = os.environ.get("LATENTSET_STANDIN_QUEUE_MODE")
    if mode == "refuse":
        print("sbatch: error: invalid partition specified: nowhere", file=sys.stderr)
        return 1
    number = 1
    while True:
        try:
            with (folder / f"{number}.sh").open("x") as file:
                file.write(script)
            break
        except FileExistsError:
            number += 1
    if mode != "hold":
        with (folder / f"{number}.out").open("w") as output:
            job = subprocess.Popen(
                ["bash", str(folder / f"{number}.sh")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        (folder / f"{number}.pid").write_text(str(job.pid))
    print(f"Submitted batch job {number}")
    return 0


def cancel(folder: Path, number: str) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        os.killpg(int((folder / f"{number}.pid").read_text()), signal.SIGTERM)
    return 0


if __name__ == "__main__":
    command, jobs = Path(sys.argv[0]).stem, Path(os.environ["LATENTSET_STANDIN_QUEUE"])
    if command in SUBMIT:
        text = Path(sys.argv[1]).read_text() if len(sys.argv) > 1 else sys.stdin.read()
        sys.exit(submit(jobs, text))
    if command in CANCEL:
        sys.exit(cancel(jobs, sys.argv[1]))
