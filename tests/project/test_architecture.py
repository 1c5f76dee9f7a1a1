"""The rules of the layout: who may import whom, no cycles, one name for one thing, small modules.

They are read from the source, so that imports inside functions and for type checkers count too.
"""

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
API = "src/latentset"
"""The Python interface, and links to the other parts."""
PARTS = (API, "cli", "datasets", "paper", "pipeline", "sharing", "train")
MAX_LINES = 400

MAY_IMPORT = {
    "datasets.errors": ("datasets.errors",),
    "datasets.version": ("datasets.version",),
    "datasets.limits": ("datasets.limits",),
    "datasets.terminal": ("datasets.terminal", "datasets.limits"),
    "datasets.storage": ("datasets.storage", "datasets.errors"),
    "datasets.sources": (
        "datasets.sources",
        "datasets.storage",
        "datasets.limits",
        "datasets.errors",
    ),
    "datasets.store": (
        "datasets.store",
        "datasets.storage",
        "datasets.sources.resize",
        "datasets.limits",
        "datasets.terminal",
        "datasets.errors",
    ),
    "pipeline": ("pipeline", "datasets"),
    "sharing": ("sharing", "datasets"),
    "train": ("train", "datasets"),
    "api": ("api", "cli.main", "train", "datasets"),
    "paper": ("paper", "train", "datasets"),
    "cli": ("cli", "datasets", "paper", "pipeline", "sharing", "train"),
}
"""What the modules of each part may import of ours; of two parts that fit, the longer counts."""

MIRRORED = ("metadata", "writer", "reader", "verify")
"""Modules that the two formats, datasets/store/zarr and datasets/store/hdf5, have both."""


@dataclass(frozen=True)
class Module:
    """A module of ours: ``datasets.store.header``."""

    name: str
    text: str
    is_package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    def imported(self) -> Iterator[tuple[str, str]]:
        """Absolute name of the module, and the name that is imported from it, if any."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, "") for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = ""
                if node.level:
                    parts = f"latentset.{self.name}".split(".")
                    base = ".".join(parts[: len(parts) - node.level + self.is_package]) + "."
                for alias in node.names:
                    yield (base + (node.module or "")).rstrip("."), alias.name

    def imports(self, modules: Mapping[str, "Module"]) -> set[str]:
        """The modules of ours that it imports."""
        found = set()
        for module, name in self.imported():
            for candidate in (f"{module}.{name}", module):
                short = candidate.removeprefix("latentset.").rstrip(".")
                if candidate.startswith("latentset.") and short in modules:
                    found.add(short)
                    break
        return found - {self.name}


Modules = Mapping[str, Module]


def read_modules(folders: tuple[str, ...]) -> dict[str, Module]:
    modules = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = ("api", *parts[2:]) if folder == API else parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            modules[name] = Module(name, path.read_text(encoding="utf-8"), is_package)
    return modules


def find_cycles(modules: Modules) -> Iterator[str]:
    imports = {name: module.imports(modules) for name, module in modules.items()}

    def reached(name: str) -> frozenset[str]:
        seen: set[str] = set()
        pending = [name]
        while pending:
            new = imports[pending.pop()] - seen
            seen |= new
            pending += new
        return frozenset(seen)

    reach = {name: reached(name) for name in modules}
    cycles = {
        tuple(sorted(other for other in reach[name] if name in reach[other]))
        for name in modules
        if name in reach[name]
    }
    yield from (" <-> ".join(cycle) for cycle in cycles)


def is_below(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def find_forbidden_imports(modules: Modules) -> Iterator[str]:
    for name, module in modules.items():
        part = max((part for part in MAY_IMPORT if is_below(name, part)), key=len, default=None)
        for other in module.imports(modules):
            if part is not None and not any(is_below(other, may) for may in MAY_IMPORT[part]):
                yield f"{name} -> {other}"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def find_private_imports(modules: Modules) -> Iterator[str]:
    for name, module in modules.items():
        ours = {}
        for base, imported in module.imported():
            if base.startswith("latentset.") and is_private(imported):
                yield f"{name} -> {base.removeprefix('latentset.')}.{imported}"
            target = f"{base}.{imported}".removeprefix("latentset.")
            if target in modules:
                ours[imported] = target
        for node in ast.walk(module.tree):
            if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
                continue
            if is_private(node.attr) and node.value.id in ours:
                yield f"{name} -> {ours[node.value.id]}.{node.attr}"


def find_long_modules(modules: Modules) -> Iterator[str]:
    for name, module in modules.items():
        if (lines := len(module.text.splitlines())) > MAX_LINES:
            yield f"{name}: {lines} lines"


def find_module_names_used_twice(modules: Modules) -> Iterator[str]:
    """Modules of the command line are named after its commands, as are the parts below it."""
    counted = Counter(
        name.rpartition(".")[2]
        for name, module in modules.items()
        if not module.is_package and not is_below(name, "cli")
        if not (
            name.rpartition(".")[2] in MIRRORED
            and name.rpartition(".")[0] in ("datasets.store.zarr", "datasets.store.hdf5")
        )
    )
    yield from (name for name, count in counted.items() if count > 1)


def find_class_names_used_twice(modules: Modules) -> Iterator[str]:
    counted = Counter(
        node.name
        for module in modules.values()
        for node in module.tree.body
        if isinstance(node, ast.ClassDef)
    )
    yield from (name for name, count in counted.items() if count > 1)


RULES: dict[str, Callable[[Modules], Iterator[str]]] = {
    "import cycles": find_cycles,
    "forbidden imports": find_forbidden_imports,
    "private names imported": find_private_imports,
    "long modules": find_long_modules,
    "module names used twice": find_module_names_used_twice,
    "class names used twice": find_class_names_used_twice,
}


@pytest.fixture(scope="module")
def product() -> Modules:
    return read_modules(PARTS)


@pytest.mark.parametrize("rule", RULES)
def test_the_product_keeps_the_rules(rule: str, product: Modules) -> None:
    assert set(RULES[rule](product)) == set()


def test_every_part_has_its_rule(product: Modules) -> None:
    for name, module in product.items():
        assert module.is_package or any(is_below(name, part) for part in MAY_IMPORT), name


def test_the_documents_name_files_that_exist() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    path = re.compile(rf"\b(?:{'|'.join((*PARTS, 'tests', 'benchmarks'))})/[\w/]+\.(?:py|md)\b")
    named = {(page.name, name) for page in pages for name in path.findall(page.read_text("utf-8"))}
    assert len(named) > 20
    assert not [(page, name) for page, name in named if not (ROOT / name).exists()]


def find_imported_tests(modules: Modules) -> Iterator[str]:
    for name, module in modules.items():
        for base, imported in module.imported():
            target = base.removeprefix("latentset.")
            if is_below(target, "tests") and not is_below(f"{target}.{imported}", "tests.makers"):
                yield f"{name} -> {target}"


def test_no_test_imports_another() -> None:
    found = set(find_imported_tests(read_modules(("tests", "benchmarks"))))
    assert found == set()


@pytest.mark.parametrize(
    ("rule", "texts", "expected"),
    [
        (
            "import cycles",
            {
                "train.a": "from latentset.train.b import f",
                "train.b": "def f():\n    from latentset.train import c",
                "train.c": (
                    "from typing import TYPE_CHECKING\n"
                    "if TYPE_CHECKING:\n    import latentset.train.a"
                ),
                "train.d": "from . import a",
            },
            {"train.a <-> train.b <-> train.c"},
        ),
        (
            "import cycles",
            {"train.a": "from .b import f", "train.b": "from . import a"},
            {"train.a <-> train.b"},
        ),
        (
            "forbidden imports",
            {
                "datasets.errors": "",
                "datasets.sources.resize": "from latentset.datasets.errors import E",
                "datasets.storage.lock": "from latentset.datasets.store.header import Frozen",
                "datasets.store.header": "from latentset.datasets.sources.resize import R",
                "datasets.store.summary": "from latentset.cli import main",
                "pipeline.job": "from latentset.train import fit",
                "train.fit": "from latentset.paper import report",
                "paper.report": "from latentset.train import fit",
                "cli.main": "from latentset.pipeline import job",
            },
            {
                "datasets.storage.lock -> datasets.store.header",
                "datasets.store.summary -> cli.main",
                "pipeline.job -> train.fit",
                "train.fit -> paper.report",
            },
        ),
        (
            "private names imported",
            {
                "train.a": "from latentset.train.b import _f, g\nfrom os import _exit\ng._x",
                "train.b": "from latentset.train import a\na._h()\na.__doc__",
            },
            {"train.a -> train.b._f", "train.b -> train.a._h"},
        ),
        (
            "long modules",
            {"train.a": "\n" * 401, "train.b": "\n" * 400},
            {"train.a: 401 lines"},
        ),
        (
            "module names used twice",
            {
                "train.a": "",
                "paper.a": "",
                "cli.a": "",
                "datasets.store.zarr.reader": "",
                "datasets.store.hdf5.reader": "",
                "datasets.store.zarr.chunks": "",
                "datasets.store.hdf5.chunks": "",
            },
            {"a", "chunks"},
        ),
        (
            "class names used twice",
            {"train.a": "class A: ...\nclass B: ...", "cli.a": "class A:\n    class B: ..."},
            {"A"},
        ),
    ],
)
def test_each_rule_can_fail(rule: str, texts: dict[str, str], expected: set[str]) -> None:
    assert set(RULES[rule]({name: Module(name, text) for name, text in texts.items()})) == expected


def test_an_imported_test_is_found() -> None:
    texts = {
        "tests.train.test_a": "from tests.train.test_b import helper",
        "tests.train.test_b": "from .conftest import helper",
        "tests.train.test_c": "from tests.makers.graphs import f\nfrom tests.makers import graphs",
    }
    modules = {name: Module(name, text) for name, text in texts.items()}
    assert set(find_imported_tests(modules)) == {
        "tests.train.test_a -> tests.train.test_b",
        "tests.train.test_b -> tests.train.conftest",
    }
