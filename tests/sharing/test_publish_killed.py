"""Kill -9 while a store is published: the same command ends with equal bytes."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.makers.commands import content_of
from tests.makers.destinations import Destination, hub_destination, location_destination
from tests.makers.publishing import publish_apart


@pytest.fixture(params=["hub", "folder", "s3"])
def destinations(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[int, Callable[[int], Destination]]:
    """How many kills, and an empty destination for each of them."""
    match request.param:
        case "hub":
            hub: Any = request.getfixturevalue("hub")
            hub.delay_s = 0.005
            return 10, lambda number: hub_destination(hub, f"org/set{number}")
        case "folder":
            return 8, lambda number: location_destination(tmp_path / f"published{number}")
        case _:
            prefix = request.getfixturevalue("s3")
            return 2, lambda number: location_destination(f"{prefix}/{number}")


def test_the_same_command_resumes_after_a_kill(
    made: Path, card: Path, destinations: tuple[int, Callable[[int], Destination]]
) -> None:
    kills, destination_of = destinations
    whole = content_of(made) | content_of(card)
    events = publish_apart(made, destination_of(0).url, card)
    assert destination_of(0).content() == whole
    moments = random.Random(0)
    for number in range(1, kills + 1):
        destination = destination_of(number)
        at, delay_s = moments.randint(1, events), moments.uniform(0, 0.02)
        publish_apart(made, destination.url, card, at, delay_s)
        content = destination.content()
        if "manifest.json" in content:
            assert content == whole
        publish_apart(made, destination.url, card)
        assert destination.content() == whole
