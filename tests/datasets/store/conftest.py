"""What tests of stores share."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def _write_manifest(store: Path, manifest: dict[str, Any]) -> None:
    """By the words of docs/store-spec.md, 6: the digest of the bytes with its digits as zeros."""
    text = json.dumps({**manifest, "sha256": "0" * 64})
    digest = hashlib.sha256(text.encode()).hexdigest()
    (store / "manifest.json").write_text(json.dumps({**manifest, "sha256": digest}))


@pytest.fixture
def write_manifest() -> Callable[[Path, dict[str, Any]], None]:
    """Write a manifest that agrees with itself, as a forger would."""
    return _write_manifest


@pytest.fixture
def sign() -> Callable[[Path], None]:
    """Make the manifest of a store agree with its objects, as a forger would."""

    def sign_it(store: Path) -> None:
        manifest = json.loads((store / "manifest.json").read_text())
        for item in manifest["objects"]:
            content = (store / item["path"]).read_bytes()
            item["bytes"], item["sha256"] = len(content), hashlib.sha256(content).hexdigest()
        _write_manifest(store, manifest)

    return sign_it
