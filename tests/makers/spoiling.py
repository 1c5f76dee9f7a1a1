"""Images that cannot be encoded, and a check of the stores that are made of them."""

from pathlib import Path

from latentset.datasets.store import Store, open_store
from latentset.datasets.store.verify import verify


def no_image(path: Path) -> bytes:
    """Spoil an image's header, and return what it was."""
    whole = path.read_bytes()
    path.write_bytes(b"no image")
    return whole


def cut_off(path: Path) -> bytes:
    """Spoil an image's body: it turns out when it is decoded."""
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    return whole


def check(store: Path) -> Store:
    """Verify a store and open it."""
    findings = verify(store, lambda *_: None)
    assert findings.outcome == "sound", findings.problems
    assert not list(store.parent.glob(f"{store.name}.job/*/retry"))
    return open_store(store)
