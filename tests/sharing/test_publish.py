"""Publishing to a folder, a bucket and the Hub: what is there afterwards, and what is refused."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from latentset.datasets.errors import (
    MissingEnvironmentError,
    StoreCorruptError,
    StoreError,
    StoreIncompleteError,
)
from latentset.datasets.storage.location import open_location
from latentset.datasets.store import open_store
from latentset.datasets.store.convert import convert
from latentset.sharing.publish import check_sound, plan_publication, publish
from tests.makers.commands import content_of
from tests.makers.destinations import Destination
from tests.makers.synthetic import write_synthetic_store


def run(store: Path, destination: Destination | str, card: Path | None = None) -> str:
    url = destination if isinstance(destination, str) else destination.url
    return publish(plan_publication(store, url, card))


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A copy of the store, to change."""
    return Path(shutil.copytree(made, tmp_path / "store.zarr"))


def test_the_store_and_its_card_are_there(made: Path, card: Path, destination: Destination) -> None:
    address = run(made, destination, card)
    assert address.startswith(destination.url)
    assert destination.content() == content_of(made) | content_of(card)


def test_nothing_is_written_again(made: Path, card: Path, destination: Destination) -> None:
    first = run(made, destination, card)
    plan = plan_publication(made, destination.url, card)
    assert not any(part.missing for part in plan.parts)
    assert publish(plan) == first


def test_a_new_card_replaces_the_old_one(made: Path, card: Path, destination: Destination) -> None:
    run(made, destination, card)
    (card / "README.md").write_text("# Other")
    plan = plan_publication(made, destination.url, card)
    assert [[item.path for item in part.missing] for part in plan.parts] == [[], ["README.md"], []]
    publish(plan)
    assert destination.content() == content_of(made) | content_of(card)


def test_what_is_there_is_known_by_its_digest(made: Path, destination: Destination) -> None:
    whole = content_of(made)
    same, other = "y_hat/c/0/0", "y_hat/c/1/0"
    destination.write(same, whole[same])
    destination.write(other, bytes(len(whole[other])))
    missing = {item.path for item in plan_publication(made, destination.url).data.missing}
    assert missing == set(whole) - {same, "manifest.json"}
    run(made, destination)
    assert destination.content() == whole


def test_another_store_is_not_replaced(
    made: Path, tmp_path: Path, destination: Destination
) -> None:
    run(made, destination)
    write_synthetic_store(tmp_path / "other.zarr", samples=4, shard_bytes=1 << 12, seed=1)
    with pytest.raises(StoreError, match=r"holds another store.*remove manifest\.json there \("):
        run(tmp_path / "other.zarr", destination)
    assert destination.content() == content_of(made)
    destination.remove("manifest.json")
    run(tmp_path / "other.zarr", destination)
    assert destination.content() == content_of(tmp_path / "other.zarr")


def test_a_manifest_that_came_early_is_refused(made: Path, destination: Destination) -> None:
    destination.write("manifest.json", (made / "manifest.json").read_bytes())
    before = destination.content()
    with pytest.raises(StoreError, match=r"marks the store as complete, and \d+ objects"):
        run(made, destination)
    assert destination.content() == before
    destination.remove("manifest.json")
    run(made, destination)
    assert destination.content() == content_of(made)


def test_an_object_that_changed_there_is_named(made: Path, destination: Destination) -> None:
    run(made, destination)
    destination.write("y_hat/c/0/0", b"altered")
    with pytest.raises(StoreError, match="y_hat/c/0/0 is missing or altered there, so that"):
        run(made, destination)


def test_a_shard_that_changed_here_is_not_published(store: Path, destination: Destination) -> None:
    content = bytearray((store / "y_hat/c/0/0").read_bytes())
    content[10] ^= 1
    (store / "y_hat/c/0/0").write_bytes(content)
    with pytest.raises(StoreCorruptError, match=r"is not sound: y_hat"):
        check_sound(open_store(store))
    with pytest.raises(StoreCorruptError, match=r"y_hat/c/0/0 .* altered after the manifest"):
        run(store, destination)
    assert "manifest.json" not in destination.content()


def test_a_shard_that_changes_meanwhile_is_not_published(
    store: Path, destination: Destination
) -> None:
    plan = plan_publication(store, destination.url)
    (store / "z_hat/c/0/0").unlink()
    with pytest.raises(StoreCorruptError, match=r"z_hat/c/0/0 is missing"):
        publish(plan)
    assert "manifest.json" not in destination.content()


def test_foreign_objects_are_not_covered_up(made: Path, destination: Destination) -> None:
    destination.write("y_hat/c/99/0", b"of an earlier store")
    destination.write("README.md", b"# Kept")
    with pytest.raises(StoreError, match=r"1 objects that are no part .*\(y_hat/c/99/0\)"):
        run(made, destination)
    destination.remove("y_hat/c/99/0")
    run(made, destination)
    assert destination.content() == content_of(made) | {"README.md": b"# Kept"}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://example.org/store", "s3://…, gs://… or a folder to publish to"),
        ("az://container/store", "s3://…, gs://… or a folder to publish to"),
        ("hf://org/set", "expected hf://datasets/ORG/NAME"),
        ("hf://datasets/org/set@v1", "without a revision"),
        ("hf://datasets/org/set/folder", "without a revision or a folder"),
        ("s3://bucket", "is a whole bucket"),
    ],
)
def test_destinations_that_cannot_be(made: Path, url: str, message: str) -> None:
    with pytest.raises(StoreError, match=re.escape(message)):
        run(made, url)


def test_a_folder_that_cannot_be(made: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder, message in [
        (store, "is the store itself"),
        (store / "inside", "is inside the store"),
        (tmp_path / "file", "is a file"),
    ]:
        with pytest.raises(StoreError, match=message):
            run(store, str(folder))
    assert content_of(store) == content_of(made)


def test_a_folder_without_room_is_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(StoreError, match=r"bytes are to be written, and 0 are free"):
        run(made, str(tmp_path / "full"))


def test_stores_that_cannot_be_published(made: Path, store: Path, tmp_path: Path, s3: str) -> None:
    target = str(tmp_path / "published")
    convert(open_store(made), open_location(tmp_path / "store.h5"), "hdf5")
    advice = "latentset convert .*store.h5 store.zarr"
    with pytest.raises(StoreError, match=advice):
        run(tmp_path / "store.h5", target)
    run(made, f"{s3}/store")
    with pytest.raises(StoreError, match=r"latentset pull s3://.*store FOLDER"):
        publish(plan_publication(f"{s3}/store", target))
    (store / "manifest.json").unlink()
    with pytest.raises(StoreIncompleteError, match=r"manifest\.json is missing"):
        run(store, target)
    assert not Path(target).exists()


def test_without_the_client_the_extra_is_named(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingEnvironmentError, match=r"pip install '\.\[hub\]'"):
        run(made, "hf://datasets/org/set")


def test_a_folder_that_is_no_card_is_refused(made: Path, card: Path, tmp_path: Path) -> None:
    (card / "notes.txt").touch()
    with pytest.raises(StoreError, match=r"notes\.txt is no part of a card"):
        run(made, str(tmp_path / "published"), card)
    with pytest.raises(StoreError, match=r"expected a card, with README\.md"):
        run(made, str(tmp_path / "published"), card / "figures")


def test_what_a_killed_writer_left_is_removed(made: Path, tmp_path: Path) -> None:
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / ".zarr.json.partial-abc").touch()
    run(made, str(tmp_path / "published"))
    assert content_of(tmp_path / "published") == content_of(made)
