"""Every block of commands in README.md and docs/*.md runs, or says why not.

The commands run in this process in the order of their page, each page in a folder of its own with
small inputs under the names that the pages use. In the encode environment ``images/`` is encoded by
the shipped codec; in the train environment stores are made up. Training takes one epoch.
"""

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from latentset.cli.main import app
from latentset.datasets.storage.location import Bucket
from tests.makers.pages import PAGES, Block, find_blocks, read_blocks
from tests.makers.synthetic import write_synthetic_pixels, write_synthetic_store
from tests.makers.workers import thread_workers

HERE = "encode" if find_spec("tensorflow") else "train"
CLASSES = ("glass", "metal", "paper")
SPLITS = ("train", "train", "val", "test")
SHORT = ["--set", "schedule.epochs=1", "--set", "schedule.decay_epochs=[]"]
ENCODE = "encode images/ images.zarr --codec demo-hyperprior-msssim-4 --shard-bytes 256MiB"

PYTHON_ELSEWHERE = {
    "README.md": "tests/api/test_documents.py",
    "docs/python.md": "tests/api/test_documents.py",
    "docs/store-spec.md": "tests/datasets/store/test_plain_readers.py",
}
"""Which test runs the Python blocks of a page."""

PYTHON_HERE = ("docs/models.md",)

PUBLISHED = ("hf://datasets/org/images", "s3://bucket/images.zarr")
"""Where a page finds ``images.zarr`` if it has not put a store there."""


def run(words: list[str]) -> str:
    result = CliRunner().invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, (words, result.output)
    return result.output


def write_image_folder(folder: Path) -> None:
    random = np.random.default_rng(1)
    for split in ("train", "val", "test"):
        for name in CLASSES:
            (folder / "images" / split / name).mkdir(parents=True)
            for k in range(2):
                pixels = random.integers(0, 256, (4, 4, 3), np.uint8)
                image = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BILINEAR)
                image.save(folder / "images" / split / name / f"{k}.png")
    shutil.copytree(folder / "images/test/glass", folder / "new")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the inputs of all pages."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SOURCE_DATE_EPOCH", "1000000000")
        patch.setenv("OMP_NUM_THREADS", "1")
        if HERE == "encode":
            write_image_folder(folder)
            from latentset.pipeline.encode import encode
            from latentset.pipeline.jobs import options

            with thread_workers(1) as address:
                for module, name in ((encode, "EncodeOptions"), (options, "JobOptions")):
                    patch.setattr(module, name, on_workers(getattr(module, name), address))
                run(shlex.split(ENCODE))
                yield folder
        else:
            import torch

            torch.set_num_threads(1)
            write_synthetic_store(folder / "images.zarr", classes=CLASSES, splits=SPLITS)
            write_synthetic_pixels(folder / "originals.zarr", classes=CLASSES, splits=SPLITS)
            write_synthetic_store(folder / "new.zarr", samples=6, labelled=False)
            yield folder


def on_workers(make: Callable[..., Any], address: str) -> Callable[..., Any]:
    """Make the options of a job that runs on workers that are there."""
    return lambda **fields: make(**{**fields, "scheduler": address, "workers": None})


@pytest.fixture
def folder(
    made: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A new folder with the inputs of a page; what the page makes by itself is not there."""
    shutil.copytree(made, tmp_path / "page", symlinks=True)
    monkeypatch.chdir(tmp_path / "page")
    return tmp_path / "page"


def remove_store(path: Path) -> None:
    for folder in (path, path.with_name(f"{path.name}.job")):
        shutil.rmtree(folder, ignore_errors=True)


def commands_here(blocks: list[Block]) -> list[str]:
    return [
        command.text
        for block in blocks
        if block.language == "console" and not block.not_run
        for command in block.commands()
        if command.environment in ("", HERE)
    ]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands_here(read_blocks(page))] or ["none"]
)
def test_commands(page: str, folder: Path, made: Path, request: pytest.FixtureRequest) -> None:
    commands = commands_here(read_blocks(page))
    text = "\n".join(commands)
    served = request.getfixturevalue("serve")(made) if "https://" in text else ""
    if "hf://" in text:
        request.getfixturevalue("hub")
    bucket = request.getfixturevalue("s3") if "s3://" in text else ""
    commits: dict[str, str] = {}

    def run_line(line: str) -> None:
        line = line.replace("/ORG/", "/org/").replace("https://example.org", served)
        line = line.replace("s3://bucket", bucket)
        line = re.sub(r"(hf://\S+)@[A-Z]+", lambda found: commits[found[1]], line)
        name, *words = shlex.split(line, comments=True)
        assert name == "latentset", f"{page}: {line}: is no command of ours; mark its block"
        if words[0] == "pull" and not words[2].startswith("-"):
            remove_store(folder / words[2])  # as on another machine
        output = run([*words, *(SHORT if words[0] == "train" else [])])
        for address, commit in re.findall(r"(hf://\S+)@(\w+)", output):
            commits[address] = f"{address}@{commit}"

    if "s3://bucket/images " in text:
        for path in (folder / "images").rglob("*.png"):
            name = path.relative_to(folder / "images").as_posix()
            Bucket(f"{bucket}/images").write(name, path.read_bytes())
    for address in PUBLISHED:
        if address in text and f"images/ {address}" not in text:
            run_line(f"latentset publish images.zarr {address} --license cc-by-4.0")
    if re.search(r"encode .*\bimages\.zarr", text):
        remove_store(folder / "images.zarr")
    for command in commands:
        run_line(command)


@pytest.mark.skipif(HERE == "encode", reason="Python blocks need the train environment")
@pytest.mark.parametrize("page", PYTHON_HERE)
def test_python_blocks(page: str, folder: Path) -> None:
    names: dict[str, Any] = {"__name__": "example"}
    for block in read_blocks(page):
        if block.language == "python":
            exec(compile(block.text, f"{page}:{block.line}", "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_commands_is_run_or_says_why_not(page: str) -> None:
    for block in read_blocks(page):
        where = f"{page}:{block.line}"
        assert block.language in ("console", "python", "text", "yaml"), where
        if block.language == "console":
            assert block.commands(), f"{where}: no prompt: (encode) $, (train) $, or $"
        elif block.language == "python":
            assert page in PYTHON_HERE or page in PYTHON_ELSEWHERE or block.not_run, where
        elif block.language == "text":
            assert not re.search(r"(?m)^(\(\w+\) )?(\$ |latentset (?!\()|python )", block.text), (
                where
            )


def test_blocks_are_found() -> None:
    text = (
        "```console\n$ a\nits output\n(train) $ b \\\n    c\n```\n"
        "<!-- not run: a reason -->\n```console\n(encode) $ d\n```\n"
    )
    first, second = find_blocks("page", text)
    assert [(c.environment, c.text.split()) for c in first.commands()] == [
        ("", ["a"]),
        ("train", ["b", "c"]),
    ]
    assert (first.not_run, second.not_run, second.line) == ("", "a reason", 7)
    assert [c.environment for c in second.commands()] == ["encode"]
