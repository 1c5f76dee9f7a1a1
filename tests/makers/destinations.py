"""Where a store is published: a folder, a bucket, a repository on the Hub, as a test sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from latentset.datasets.storage.location import open_location
from tests.makers.hub import FakeHub
from tests.makers.repository import File


@dataclass
class Destination:
    """One destination."""

    url: str
    content: Callable[[], dict[str, bytes]]
    """Every object that is there."""
    write: Callable[[str, bytes], None]
    """Write an object there, behind the publisher's back."""
    remove: Callable[[str], None]


def location_destination(where: Path | str) -> Destination:
    """A folder or a prefix in a bucket."""
    location = open_location(where)

    def content() -> dict[str, bytes]:
        return {path: location.read(path) for path in location.sizes() or {}}

    return Destination(str(location), content, location.write, location.remove)


def hub_destination(hub: FakeHub, name: str) -> Destination:
    """A data set's repository, without what the Hub itself puts there."""

    def content() -> dict[str, bytes]:
        files = dict(hub.repositories[name].files) if name in hub.repositories else {}
        files.pop(".gitattributes", None)
        return files

    def write(path: str, content: bytes) -> None:
        if name not in hub.repositories:
            hub.add(name, {})
        repository = hub.repositories[name]
        repository.commit("by hand", repository.commits[-1].tree | {path: File(content, True)})

    def remove(path: str) -> None:
        repository = hub.repositories[name]
        tree = dict(repository.commits[-1].tree)
        del tree[path]
        repository.commit("by hand", tree)

    return Destination(f"hf://datasets/{name}", content, write, remove)
