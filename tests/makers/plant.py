"""Made-up collections. Sources never open an image, so that empty files serve."""

from collections.abc import Callable, Iterable
from pathlib import Path

Plant = Callable[..., Path]
"""The fixture ``plant``."""


def make_collection(root: Path, paths: Iterable[str], texts: dict[str, str] | None = None) -> Path:
    """Make empty files below a root, with given texts beside them."""
    root.mkdir(exist_ok=True)
    for path, text in {**dict.fromkeys(paths, ""), **(texts or {})}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return root
