"""`latentset publish` on the command line: what it prints, does, and leaves alone."""

import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

from latentset.cli.main import main
from tests.makers.commands import content_of
from tests.makers.destinations import hub_destination, location_destination
from tests.makers.faulty import Fault
from tests.makers.hub import INVALID_TOKEN, TOKEN, FakeHub, answer_json
from tests.makers.synthetic import write_synthetic_store

NAME, URL = "org/set", "hf://datasets/org/set"


class Command:
    """The command with some words: exit status, output, errors."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.patch, self.capture = patch, capture

    def __call__(self, *words: object) -> tuple[int, str]:
        self.patch.setattr(sys, "argv", ["latentset", "publish", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = self.capture.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], wide_terminal: None
) -> Command:
    return Command(monkeypatch, capfd)


def test_the_plan_then_the_store_then_how_to_fetch_it(
    hub: FakeHub, made: Path, card: Path, command: Command
) -> None:
    status, output = command(made, URL, "--card", card)
    assert status == 0, output
    plan, _, last = output.partition("published; ")
    sha = hub.repositories[NAME].commits[-1].sha
    assert last.startswith(f"to fetch it: latentset pull {URL}@{sha} STORE\n")
    for row in ("objects", "to write", "largest folder", "repository", "new, private"):
        assert row in plan
    assert hub_destination(hub, NAME).content() == content_of(made) | content_of(card)
    assert last.splitlines()[0] in command(made, URL, "--card", card)[1]


def test_a_card_is_made_and_gates_restricted_images(
    hub: FakeHub, tmp_path: Path, command: Command
) -> None:
    wnids = ("n01440764", "n01443537")
    store = write_synthetic_store(tmp_path / "s.zarr", samples=4, classes=wnids)
    status, output = command(store, URL)
    assert status != 0
    assert "licen" in output
    assert NAME not in hub.repositories
    status, output = command(
        store,
        URL,
        "--license-name",
        "ImageNet terms",
        "--license-link",
        "https://image-net.org/download",
    )
    assert status == 0, output
    files = hub_destination(hub, NAME).content()
    assert {"README.md", "croissant.json", "statistics.json", "manifest.json"} <= files.keys()
    assert b"all of the store was verified" in files["README.md"]
    assert hub.repositories[NAME].gated
    hub_destination(hub, NAME).write("README.md", b"---\nlicense: other\n---\nedited by hand")
    commits = len(hub.repositories[NAME].commits)
    assert command(store, URL)[0] == 0
    assert len(hub.repositories[NAME].commits) == commits


def test_a_dry_run_changes_nothing(hub: FakeHub, made: Path, command: Command) -> None:
    status, output = command(made, URL, "--dry-run", "--public")
    assert status == 0, output
    assert "new, public" in output
    assert "published" not in output
    assert {request.method for request in hub.requests} == {"GET"}


def test_the_store_is_verified_first(
    made: Path, card: Path, tmp_path: Path, command: Command
) -> None:
    store = Path(shutil.copytree(made, tmp_path / "store.zarr"))
    content = bytearray((store / "y_hat/c/0/0").read_bytes())
    content[10] ^= 1
    (store / "y_hat/c/0/0").write_bytes(content)
    status, output = command(store, tmp_path / "published")
    assert status == 1
    assert "is not sound: y_hat" in output
    assert not (tmp_path / "published").exists()
    status, output = command(store, tmp_path / "published", "--skip-verify")
    assert status == 1
    assert "y_hat, rows from 0" in output  # the card reads them
    status, output = command(store, tmp_path / "published", "--skip-verify", "--card", card)
    assert status == 1
    assert "y_hat/c/0/0 is missing or was altered" in output
    assert not (tmp_path / "published" / "manifest.json").exists()


def test_the_token_is_never_printed(hub: FakeHub, made: Path, command: Command) -> None:
    hub.faults.append(Fault("/commit/", answer=INVALID_TOKEN, after=1))
    status, output = command(made, URL)
    assert status == 1
    assert "the Hub does not know you. Log in (hf auth login) or set HF_TOKEN" in output
    assert TOKEN not in output
    status, output = command(made, URL)
    assert status == 0, output
    assert TOKEN not in output


def test_a_readme_that_a_person_wrote_is_not_lost(
    made: Path, card: Path, tmp_path: Path, command: Command
) -> None:
    there = tmp_path / "published"
    there.mkdir()
    (there / "README.md").write_text("# my notes")
    status, output = command(made, there)
    assert status == 1
    assert "a README.md that latentset did not write" in output
    assert [path.name for path in there.iterdir()] == ["README.md"]
    assert (there / "README.md").read_text() == "# my notes"
    assert command(made, there, "--card", card)[0] == 0  # asked for
    assert (there / "README.md").read_bytes() == (card / "README.md").read_bytes()


@pytest.mark.parametrize("where", ["folder", "hub"])
def test_another_licence_leaves_no_file_of_the_one_before(
    hub: FakeHub, made: Path, tmp_path: Path, command: Command, where: str
) -> None:
    (tmp_path / "lic.txt").write_text("All rights reserved")
    url = URL if where == "hub" else str(tmp_path / "published")
    named = ("--license-name", "mine", "--license-file", tmp_path / "lic.txt")
    status, output = command(made, url, *named)
    assert status == 0, output
    destination = hub_destination(hub, NAME) if where == "hub" else location_destination(url)
    assert destination.content()["LICENSE"] == b"All rights reserved"
    status, output = command(made, url, "--license", "cc0-1.0")
    assert status == 0, output
    assert "LICENSE" not in destination.content()
    assert b"cc0-1.0" in destination.content()["README.md"]


def test_a_licence_that_the_hub_does_not_know_is_refused_before_anything_is_written(
    hub: FakeHub, made: Path, command: Command
) -> None:
    wrong = {"errors": [{"message": '"license" must be one of …'}], "warnings": []}
    hub.faults.append(Fault("/api/validate-yaml", answer=answer_json(wrong)))
    status, output = command(made, URL, "--license", "bogus-1")
    assert status == 1
    assert "does not accept the card" in output
    assert "--license" in output
    assert NAME not in hub.repositories


def test_a_card_without_terms_is_refused_for_restricted_images(
    hub: FakeHub, card: Path, tmp_path: Path, command: Command
) -> None:
    wnids = ("n01440764", "n01443537")
    store = write_synthetic_store(tmp_path / "s.zarr", samples=4, classes=wnids)
    status, output = command(store, URL, "--card", card)
    assert status == 1
    assert "come with terms of their own" in output
    assert NAME not in hub.repositories
