"""Made-up collections. Sources never open an image, so that empty files serve."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

Plant = Callable[..., Path]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """A function that makes empty files below a new root, with given texts beside them."""

    def make(paths: Iterable[str], texts: dict[str, str] | None = None) -> Path:
        root = tmp_path / "collection"
        root.mkdir(exist_ok=True)
        for path, text in {**dict.fromkeys(paths, ""), **(texts or {})}.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
        return root

    return make
