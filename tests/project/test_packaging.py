"""setup.cfg against the folders; the Dockerfile against the Makefile."""

import re
from configparser import ConfigParser
from importlib.metadata import version as installed_version
from pathlib import Path

import pytest

from latentset.datasets.version import __version__

ROOT = Path(__file__).parents[2]
PARTS = ("cli", "datasets", "paper", "pipeline", "sharing", "train")


@pytest.fixture(scope="module")
def setup_cfg() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_every_package_is_listed(setup_cfg: ConfigParser) -> None:
    listed = set(setup_cfg["options"]["packages"].split())
    found = {"latentset"}
    for part in PARTS:
        for module in (ROOT / part).rglob("*.py"):
            found.add(".".join(("latentset", *module.parent.relative_to(ROOT).parts)))
    assert found <= listed
    assert listed - found <= {"latentset.recipes", "latentset.pipeline.codec.weights"}


def test_every_part_is_linked() -> None:
    linked = {path.name: path.resolve() for path in (ROOT / "src" / "latentset").iterdir()}
    for part in (*PARTS, "recipes"):
        assert linked[part] == ROOT / part


def test_datasets_has_no_init() -> None:
    # With one, `python -m` from the repository's root would import it as a top-level `datasets`.
    assert not (ROOT / "datasets" / "__init__.py").exists()


def test_version_is_set_in_one_place(setup_cfg: ConfigParser) -> None:
    assert __version__ == installed_version("latentset") == setup_cfg["metadata"]["version"]


def test_every_requirement_has_its_reason() -> None:
    lines = (ROOT / "setup.cfg").read_text().splitlines()
    start = lines.index("install_requires =")
    requirement = re.compile(r"^    [A-Za-z]")
    for number, line in enumerate(lines[start:], start):
        if line.startswith("[options.entry_points]"):
            break
        development = line.strip().startswith(("pytest", "hypothesis", "ruff", "mypy"))
        if requirement.match(line) and not development:
            assert lines[number - 1].strip().startswith("#"), f"no reason above: {line.strip()}"


def _installs(text: str) -> dict[str, set[str]]:
    """Extras that each environment or image installs, less the development ones."""
    found = {}
    for name, extras in re.findall(r"(?m)^(ENCODE|TRAIN)_EXTRAS\s*[:]?=\s*(\S+)", text):
        found[{"ENCODE": "pipeline", "TRAIN": "train"}[name]] = set(extras.split(",")) - {
            "dev",
            "demo",
        }
    for target, block in re.findall(r"(?ms)^FROM \S+ AS (\w+)\n(.*?)(?=^FROM |\Z)", text):
        extras = re.search(r"pip install [^\n]*'\.\[([\w,]+)\]'", block)
        if extras:
            found[target] = set(extras[1].split(","))
    return found


def test_dockerfile_installs_what_the_makefile_does() -> None:
    makefile = _installs((ROOT / "Makefile").read_text())
    dockerfile = _installs((ROOT / "Dockerfile").read_text())
    assert set(makefile) == {"pipeline", "train"}
    assert dockerfile == makefile


def test_dockerfile_uses_the_makefiles_python() -> None:
    makefile_python = re.search(r"(?m)^PYTHON \?= (python3\.\d+)", (ROOT / "Makefile").read_text())
    assert makefile_python
    images = re.findall(r"(?m)^FROM (python:\S+)", (ROOT / "Dockerfile").read_text())
    assert images
    for image in images:
        assert image.startswith(makefile_python[1].replace("python", "python:"))
