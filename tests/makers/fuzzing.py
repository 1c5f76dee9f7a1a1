"""Trying many inputs that were drawn at random, each in a process of its own."""

import os
import secrets
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from latentset.datasets.storage.location import Folder
from latentset.datasets.store import open_store
from latentset.datasets.store.convert import convert
from latentset.datasets.store.formats import Format
from tests.makers.confined import confined
from tests.makers.forging import forge_hdf5, forge_zarr, read_objects, write_objects_to

SECONDS = float(os.environ.get("LATENTSET_FUZZ_SECONDS", "0"))
EXAMPLES = 5
"""Inputs of a kind in every run of the tests."""


def fuzz(
    use: Callable[[Path, Path], str], sound: Path, container: Format, folder: Path, title: str
) -> None:
    """Use forged copies of a store: a few, or for ``LATENTSET_FUZZ_SECONDS``; print how many.

    ``use`` takes the copy and a scratch folder, and returns what came of it.
    """
    scratch, name = folder / "scratch", f"store.{container}"
    objects = read_objects(sound)
    if container == "hdf5":
        convert(open_store(sound), Folder(folder / name), container)
        content = (folder / name).read_bytes()
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + SECONDS

    def attempt(data: st.DataObject) -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        store = scratch / name
        if container == "hdf5":
            store.write_bytes(forge_hdf5(data.draw, content))
        else:
            write_objects_to(store, forge_zarr(data.draw, objects))
        try:
            outcomes[confined(use, store, scratch)] += 1
        except AssertionError:
            kept = shutil.copytree(scratch, scratch.with_name(f"failed-{secrets.token_hex(3)}"))
            print(f"\nkept in {kept}", file=sys.stderr)
            raise

    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    options = settings(
        max_examples=50 if SECONDS else EXAMPLES,
        deadline=None,
        database=None,
        derandomize=not SECONDS,
        phases=(Phase.generate,),  # to make a failing input smaller takes minutes
        suppress_health_check=checks,
    )
    while True:
        tried = options(given(st.data())(attempt))
        (seed(secrets.randbits(64))(tried) if SECONDS else tried)()
        if time.monotonic() >= end:
            break
    found = ", ".join(f"{name} {count}" for name, count in outcomes.most_common())
    print(f"\n{title}: {outcomes.total():,} inputs: {found}", file=sys.stderr)
