"""Kill -9 of a worker, of the scheduler, of the client; benchmarks/kills.py does so 200 times."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

SEED, COUNT = 20261, 8


@pytest.fixture(scope="module")
def killing(standin: Any) -> Any:
    """The module killing.py."""
    return pytest.importorskip("tests.makers.killing")


def test_moments_are_spread_over_the_whole_run(killing: Any) -> None:
    kills = killing.draw_kills(SEED, COUNT)
    assert Counter(kill.kind for kill in kills) == {"worker": 3, "scheduler": 3, "client": 2}
    for kind, count in (("worker", 3), ("scheduler", 3), ("client", 2)):
        moments = sorted(kill.moment for kill in kills if kill.kind == kind)
        for k, moment in enumerate(moments):
            assert k / count <= moment < (k + 1) / count
    assert kills == killing.draw_kills(SEED, COUNT)
    assert kills != killing.draw_kills(SEED + 1, COUNT)


def test_after_a_kill_at_any_moment_the_same_command_writes_the_same_bytes(
    killing: Any, standin: Any, tmp_path: Path
) -> None:
    standin.write_images(tmp_path / "images", killing.SIZES, killing.IMAGES)
    scene = killing.Scene(tmp_path / "images", tmp_path)
    with ThreadPoolExecutor(2) as lanes:
        list(lanes.map(scene.measure, (False, True)))
        kills = killing.draw_kills(SEED, COUNT)
        outcomes = list(lanes.map(scene.play, kills, map(str, range(COUNT))))
    for outcome in outcomes:
        assert outcome.equal, outcome
        assert outcome.runs <= 2, outcome
        assert outcome.redone == 0, outcome
        # What the runs that were not killed themselves said of it.
        for message in outcome.messages:
            assert "run the same command again" in message
            assert "Traceback" not in message
    # Not all came too late, as where the machine was slower while an undisturbed run was timed.
    assert any(outcome.phase != "ended" for outcome in outcomes)
