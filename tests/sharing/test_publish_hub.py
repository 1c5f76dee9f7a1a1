"""Publishing to the Hub: who may read it, commits, limits, refusals, faults on the way."""

import logging
import time
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

from latentset.datasets.errors import StoreError, StoreUnreachableError
from latentset.datasets.storage.folder import Folder
from latentset.datasets.store.digests import StoredObject, sha256_of
from latentset.sharing import hub as hub_module
from latentset.sharing.hub import HubTarget
from latentset.sharing.publish import plan_publication, publish
from tests.makers.commands import content_of
from tests.makers.destinations import hub_destination
from tests.makers.faulty import Answer, Fault
from tests.makers.hub import (
    INVALID_TOKEN,
    READ_TOKEN,
    STRANGER,
    TOKEN,
    FakeHub,
    rate_limited,
)

NAME, URL = "org/set", "hf://datasets/org/set"


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that would have been waited."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


def published(hub: FakeHub) -> dict[str, bytes]:
    return hub_destination(hub, NAME).content()


def test_a_repository_is_private_unless_public_is_asked_for(hub: FakeHub, made: Path) -> None:
    publish(plan_publication(made, URL))
    publish(plan_publication(made, "hf://datasets/owner/open", public=True))
    assert hub.repositories[NAME].private
    assert not hub.repositories["owner/open"].private
    publish(plan_publication(made, URL, public=True))
    assert hub.repositories[NAME].private


def test_the_address_names_the_last_commit(hub: FakeHub, made: Path) -> None:
    address = publish(plan_publication(made, URL))
    assert address == f"{URL}@{hub.repositories[NAME].commits[-1].sha}"


def test_commits_are_small_and_the_manifest_comes_alone_and_last(
    hub: FakeHub, made: Path, card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_COMMIT_OBJECTS", 5)
    publish(plan_publication(made, URL, card))
    trees = [commit.tree for commit in hub.repositories[NAME].commits]
    added = [sorted(set(after) - set(before)) for before, after in pairwise(trees)]
    assert max(map(len, added)) == 5
    assert added[-1] == ["manifest.json"]
    assert added[-2] == ["README.md", "croissant.json", "figures/rate.png"]
    assert sum(map(len, added)) == len(content_of(made)) + 3


def test_commits_are_bounded_in_bytes(
    hub: FakeHub, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_COMMIT_BYTES", 1)
    publish(plan_publication(made, URL))
    assert len(hub.repositories[NAME].commits) == len(content_of(made)) + 1
    assert published(hub) == content_of(made)


def test_a_restricted_source_is_gated_before_its_data_is_there(
    hub: FakeHub, made: Path, card: Path
) -> None:
    readme = '---\nextra_gated_prompt: "For research only."\n---\n# Latents\n'
    (card / "README.md").write_text(readme)
    publish(plan_publication(made, URL, card, public=True))
    assert hub.repositories[NAME].gated == "auto"
    paths = [request.path for request in hub.requests]
    commits = [k for k, path in enumerate(paths) if "/commit/" in path]
    assert paths.index(f"/api/datasets/{NAME}/settings") < commits[0]


def test_a_gate_that_is_there_stays_as_it_is(hub: FakeHub, made: Path, card: Path) -> None:
    (card / "README.md").write_text('---\nextra_gated_prompt: "x"\n---\n')
    hub.add(NAME, {}).gated = "manual"
    publish(plan_publication(made, URL, card))
    assert hub.repositories[NAME].gated == "manual"


def test_a_card_with_a_damaged_head_is_refused(hub: FakeHub, made: Path, card: Path) -> None:
    (card / "README.md").write_text("---\n[1, 2]\n---\n# Latents\n")
    with pytest.raises(StoreError, match=r"README\.md: its front matter is not valid"):
        plan_publication(made, URL, card)
    assert {request.method for request in hub.requests} == {"GET"}


def test_the_plan_names_the_limits_and_the_repository(hub: FakeHub, made: Path) -> None:
    rows = dict(plan_publication(made, URL).rows())
    count = len(content_of(made))
    assert rows["to write"].startswith(f"{count} of ")
    assert rows["largest folder"] == "the top, 6 entries (at most 10,000)"
    assert rows["a pull"].startswith(f"{count} requests (the Hub answers 3,000 in five minutes")
    assert rows["repository"] == "new, private"
    assert hub.repositories == {}
    rows = dict(plan_publication(made, URL, public=True).rows())
    assert rows["repository"] == "new, public"
    hub.add(NAME, {}, private=True)
    rows = dict(plan_publication(made, URL, public=True).rows())
    assert rows["repository"] == "there already, private"
    hub.repositories[NAME].private, hub.repositories[NAME].gated = False, "auto"
    rows = dict(plan_publication(made, URL).rows())
    assert rows["repository"] == "there already, public, gated"


def described(paths: list[str], size: int = 1) -> list[StoredObject]:
    return [StoredObject(path=path, bytes=size, sha256=sha256_of(b"")) for path in paths]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (
            described([f"y_hat/c/{k}/0" for k in range(10_001)]),
            r"y_hat/c has 10,001 entries.*convert /store BIGGER --shard-bytes 256MiB",
        ),
        (
            described([f"{k // 9000}/{k}" for k in range(100_001)]),
            r"100,001 files: a repository may have 100,000.*--shard-bytes 256MiB",
        ),
        (described(["y_hat/c/0/0"], 500 * 10**9 + 1), "500,000,000,001 bytes"),
    ],
)
def test_what_the_hub_does_not_take_is_refused(items: list[StoredObject], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        HubTarget(NAME).check_limits(items, Folder(Path("/store")))
    HubTarget(NAME).check_limits(described(["a", "b"], 500 * 10**9), Folder(Path("/store")))


@pytest.mark.parametrize(
    "match", ["/api/datasets/org/set", "repos/create", "/tree/", "preupload", "batch", "/commit/"]
)
def test_too_many_requests_are_waited_for(
    hub: FakeHub, made: Path, match: str, waited: list[float]
) -> None:
    hub.faults.append(Fault(match, answer=rate_limited(7), times=2))
    publish(plan_publication(made, URL))
    assert waited == [8.0, 8.0]
    assert published(hub) == content_of(made)


def test_a_wait_that_is_too_long_is_not_waited_for(
    hub: FakeHub, made: Path, waited: list[float]
) -> None:
    hub.faults.append(Fault("repos/create", answer=rate_limited(6000)))
    with pytest.raises(StoreUnreachableError, match=r"Wait about 100 minutes, then run the same"):
        publish(plan_publication(made, URL))
    assert waited == []


def test_requests_that_are_always_refused_end(
    hub: FakeHub, made: Path, waited: list[float]
) -> None:
    hub.faults.append(Fault("repos/create", answer=Answer(503), times=100))
    with pytest.raises(StoreUnreachableError, match="it resumes"):
        publish(plan_publication(made, URL))
    assert waited == [5.0] * 4


@pytest.mark.parametrize(
    ("token", "url", "message"),
    [
        ("", URL, r"the Hub does not know you\. Log in \(hf auth login\) or set HF_TOKEN"),
        (READ_TOKEN, URL, r"your token only reads.*settings/tokens"),
        (STRANGER, URL, r"your token may not do this.*namespace \"org\""),
    ],
)
def test_who_may_not_write_is_told_what_to_do(
    hub: FakeHub, made: Path, monkeypatch: pytest.MonkeyPatch, token: str, url: str, message: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(StoreUnreachableError, match=message) as caught:
        publish(plan_publication(made, url))
    assert "hf_token" not in str(caught.value)


def test_refusals_on_the_way(hub: FakeHub, made: Path) -> None:
    hub.faults.append(Fault("/api/datasets/org/set", answer=INVALID_TOKEN))
    with pytest.raises(StoreUnreachableError, match="the Hub does not know you"):
        publish(plan_publication(made, URL))
    hub.faults.append(Fault("preupload", answer=Answer(404)))
    with pytest.raises(StoreUnreachableError, match="it is not there, or not for you"):
        publish(plan_publication(made, URL))
    publish(plan_publication(made, URL))
    assert published(hub) == content_of(made)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PUT", port="upload", cut=10),
        Fault("PUT", port="upload", lost=True),
        Fault("PUT", port="upload", answer=Answer(500)),
        Fault("/tree/", cut=20),
    ],
)
def test_connections_that_end_are_made_again(
    hub: FakeHub, made: Path, fault: Fault, waited: list[float]
) -> None:
    hub.faults.append(fault)
    publish(plan_publication(made, URL))
    assert fault.times == 0
    assert published(hub) == content_of(made)


@pytest.mark.parametrize("after", [0, 1])
def test_a_commit_whose_answer_is_lost_is_found_by_the_same_command(
    hub: FakeHub, made: Path, after: int
) -> None:
    hub.faults.append(Fault("/commit/", lost=True, after=after))
    with pytest.raises(StoreUnreachableError, match="run the same command again: it resumes"):
        publish(plan_publication(made, URL))
    address = publish(plan_publication(made, URL))
    assert len(hub.repositories[NAME].commits) == 3
    assert address.endswith(hub.repositories[NAME].commits[-1].sha)


def test_a_commit_of_somebody_else_stops_it(hub: FakeHub, made: Path) -> None:
    publish(plan_publication(made, URL))
    hub_destination(hub, NAME).remove("manifest.json")
    plan = plan_publication(made, URL)
    hub_destination(hub, NAME).remove("y_hat/c/0/0")
    with pytest.raises(StoreError, match=r"y_hat/c/0/0 is missing or altered there after"):
        publish(plan)
    plan = plan_publication(made, URL)
    hub_destination(hub, NAME).write("y_hat/c/1/0", b"other")
    with pytest.raises(StoreUnreachableError, match="somebody else changed the repository"):
        publish(plan)
    assert "manifest.json" not in published(hub)


def test_the_token_goes_to_the_hub_alone_and_into_no_log(
    hub: FakeHub, made: Path, caplog: pytest.LogCaptureFixture, waited: list[float]
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.faults.append(Fault("preupload", answer=rate_limited(1)))
    publish(plan_publication(made, URL))
    assert "preupload" in caplog.text
    assert TOKEN not in caplog.text
    assert {r.port for r in hub.requests if "authorization" in r.headers} == {"api"}
