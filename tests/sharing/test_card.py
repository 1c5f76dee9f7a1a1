"""The card of a store, as people and programs read it."""

import hashlib
import json
import os
import re
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlcroissant
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from latentset.cli.main import app
from latentset.datasets.errors import StoreCorruptError, StoreError, StoreIncompleteError
from latentset.datasets.storage.location import open_location
from latentset.datasets.store import open_store
from latentset.datasets.store.convert import convert
from latentset.datasets.store.store import Store
from latentset.sharing.card import write_card
from latentset.sharing.figures import draw_figures
from latentset.sharing.terms import License
from tests.makers.synthetic import write_synthetic_pixels

FILES = [
    "README.md",
    "croissant.json",
    "figures/channels.png",
    "figures/classes.png",
    "figures/rate.png",
    "statistics.json",
]

# mlcroissant uses what rdflib and pandas have deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning:rdflib"),
    pytest.mark.filterwarnings("ignore:The inplace keyword"),
]

EVIL = (
    "$\\frac{$\u202ea|b` <img src=x onerror=alert(1)> [t](javascript:x) ![p](x)\n# h\x1b[31m\n---"
)


def read(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def blocks(readme: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", readme, re.DOTALL)


@pytest.fixture(scope="module")
def folder(latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The card of a store of latents; not to change."""
    target = tmp_path_factory.mktemp("card")
    assert write_card(open_store(latents), target, license=License("mit")) == FILES
    return target


def test_files_and_front_matter(folder: Path) -> None:
    assert sorted(read(folder)) == FILES
    assert DatasetCard.load(folder / "README.md").data.to_dict() == {
        "license": "mit",
        "pretty_name": "synthetic, latents of synthetic",
        "size_categories": ["n<1K"],
        "source_datasets": ["extended|other-synthetic"],
        "task_categories": ["image-classification"],
        "tags": ["latentset", "zarr", "latents", "learned-image-compression"],
        "viewer": False,
    }


def test_content(latents: Path, folder: Path) -> None:
    readme = (folder / "README.md").read_text()
    digest = hashlib.sha256((latents / "manifest.json").read_bytes()).hexdigest()
    assert f"sha256:{digest}" in readme
    assert json.loads((folder / "statistics.json").read_text())["manifest_sha256"] == digest
    assert "| train | 9 | 1 |" in readme
    assert "| val | 2 | 0 |" in readme
    assert "| 0 | even | 4 | 1 |" in readme
    assert "| 1 | odd | 5 | 1 |" in readme
    assert "**not verified**" in readme


def test_the_same_bytes_each_time(latents: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    write_card(open_store(latents), tmp_path, license=License("mit"))
    assert read(tmp_path) == read(folder)


def test_a_store_that_cannot_be_written(latents: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(latents, tmp_path / "STORE"))
    before = read(store)
    folders = [path for path in (store, *store.rglob("*")) if path.is_dir()]
    for path in folders:
        path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        result = CliRunner().invoke(app, ["card", str(store)], catch_exceptions=False)
    finally:
        for path in folders:
            path.chmod(stat.S_IRWXU)
    assert result.exit_code == 0, result.output
    assert read(store) == before
    assert sorted(read(tmp_path / "STORE.card")) == FILES


@pytest.mark.parametrize("kind", ["latents", "pixels", "hdf5"])
def test_the_snippets_run(
    kind: str, latents: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, channels = "STORE", "y_hat"
    match kind:
        case "latents":
            (tmp_path / name).symlink_to(latents)
        case "pixels":
            write_synthetic_pixels(tmp_path / name, samples=4, failed=(0,))
            channels = "pixels"
        case "hdf5":
            name = "STORE.h5"
            convert(open_store(latents), open_location(tmp_path / name), "hdf5")
    store = open_store(tmp_path / name)
    if kind != "latents":
        folder = tmp_path / "card"
        write_card(store, folder)
    readme = (folder / "README.md").read_text()
    shutil.copy(folder / "statistics.json", tmp_path)
    monkeypatch.chdir(tmp_path)
    ours, plain, normalise = blocks(readme, "python")
    namespaces: list[dict[str, Any]] = [{}, {}]
    for code, namespace in zip((ours, plain), namespaces, strict=True):
        exec(code, namespace)
        expected = store.read_sample(1)
        np.testing.assert_array_equal(namespace[channels], expected[channels])
        if kind != "pixels":
            np.testing.assert_array_equal(namespace["sigma_hat"], expected["sigma_hat"])
    assert namespaces[0]["label"] == 1
    exec(normalise, namespaces[0])
    assert namespaces[0]["normalised"].shape == namespaces[0][channels].shape
    if kind == "hdf5":
        namespaces[1]["file"].close()
    (console,) = blocks(readme, "console")
    for line in console.splitlines():
        command = line.removeprefix("$ latentset ").split()
        assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0


def test_what_publishing_adds(latents: Path, tmp_path: Path) -> None:
    write_card(open_store(latents), tmp_path, verified=True, address="hf://datasets/org/name@v1")
    readme = (tmp_path / "README.md").read_text()
    assert "$ latentset pull hf://datasets/org/name@v1 store.zarr\n" in readme
    assert 'latentset.open_store("hf://datasets/org/name@v1")' in readme
    assert "all of the store was verified" in readme
    assert "license: unknown\n" in readme
    assert "None was named when this card was written" in readme
    document = json.loads((tmp_path / "croissant.json").read_text())
    assert document["url"] == "https://huggingface.co/datasets/org/name"


def test_statistics(latents: Path, folder: Path) -> None:
    store = open_store(latents)
    found = json.loads((folder / "statistics.json").read_text())
    samples = [store.read_sample(k) for k in range(1, 12)]
    for name, share in (("y_hat", "zeros"), ("sigma_hat", "at_least_scale")):
        rows = np.concatenate([one[name].reshape(-1, 8) for one in samples])
        assert found[name]["count"] == len(rows)
        np.testing.assert_allclose(found[name]["mean"], rows.mean(axis=0, dtype=float), rtol=1e-6)
        np.testing.assert_allclose(
            found[name]["deviation"], rows.std(axis=0, dtype=float), rtol=1e-6
        )
        least = 0 if name == "y_hat" else rows.min()
        np.testing.assert_allclose(found[name][share], (rows == least).mean(axis=0))


@pytest.mark.parametrize("kind", ["latents", "decoded", "hdf5"])
def test_croissant(kind: str, latents: Path, tmp_path: Path) -> None:
    """mlcroissant takes it without an error, offline, and reads the samples by it."""
    target = tmp_path / "store"
    match kind:
        case "latents":
            shutil.copytree(latents, target)
        case "decoded":
            write_synthetic_pixels(target, samples=4, decoded=True)
        case "hdf5":
            target.mkdir()
            convert(open_store(latents), open_location(target / "STORE.h5"), "hdf5")
    store = open_store(target / "STORE.h5" if kind == "hdf5" else target)
    write_card(store, tmp_path / "card", license=License("other", "n", "LICENSE", "text"))
    shutil.copytree(tmp_path / "card", target, dirs_exist_ok=True)  # as it is published
    dataset = mlcroissant.Dataset(str(target / "croissant.json"))
    assert dataset.metadata.ctx.issues.errors == set()
    document = json.loads((target / "croissant.json").read_text())
    described = set()
    for item in document["distribution"]:
        if item["@type"] == "cr:FileObject":
            content = (target / item["contentUrl"]).read_bytes()
            assert item["sha256"] == hashlib.sha256(content).hexdigest()
            assert item["contentSize"] == f"{len(content)} B"
            described.add(item["contentUrl"])
        else:
            array = target / item["includes"].removesuffix("/**")
            paths = [path for path in array.rglob("*") if path.is_file()]
            names = sorted(str(path.relative_to(target)) for path in paths)
            described |= set(names)
            lines = [
                f"{hashlib.sha256((target / n).read_bytes()).hexdigest()}  {n}\n" for n in names
            ]
            assert item["sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert described == set(read(target)) - {"README.md", "croissant.json"}
    source = store.header.source.listing_sha256
    assert document["prov:wasDerivedFrom"]["identifier"] == f"sha256:{source}"
    classes = [row["classes/name"] for row in dataset.records("classes")]
    assert classes == list(store.header.source.classes)
    if kind != "hdf5":
        rows = list(dataset.records("samples"))
        table = pq.read_table(target / "samples.parquet").to_pylist()
        assert [row["samples/id"].decode() for row in rows] == [row["id"] for row in table]
        assert [row["samples/label"] for row in rows] == [row["label"] for row in table]


def forge(store: Store, **columns: list[Any]) -> Store:
    """The store with evil names, and columns of the table replaced."""
    header = store.header
    evil = header.source.model_copy(update={"name": EVIL, "classes": (EVIL, "\ud800" + 9999 * "x")})
    made = header.provenance.model_copy(update={"decoder": EVIL, "created": EVIL})
    table = store.samples
    for name, values in columns.items():
        k = table.schema.get_field_index(name)
        table = table.set_column(k, table.schema.field(k), pa.array(values, table.schema.types[k]))
    header = header.model_copy(update={"source": evil, "provenance": made})
    return replace(store, header=header, samples=table)


def test_names_are_never_markup(latents: Path, tmp_path: Path) -> None:
    splits = [EVIL] * 6 + [f"s{k}" for k in range(6)]
    address = "hf://datasets/a/b\n```\n<script>"
    store = forge(open_store(latents), split=splits)
    write_card(store, tmp_path, license=License("other", EVIL, "https://a.org"), address=address)
    card = DatasetCard.load(tmp_path / "README.md")
    assert set(card.data.to_dict()) == {
        "license", "license_name", "license_link", "pretty_name", "size_categories",
        "source_datasets", "task_categories", "tags", "viewer",
    }  # fmt: skip
    text = (tmp_path / "README.md").read_text().partition("\n---\n")[2]
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inner = [child for token in tokens for child in token.children or []]
    html = [token.content.strip() for token in [*tokens, *inner] if "html" in token.type]
    assert html == ["<!-- written by latentset card -->"]
    links = [str(token.attrs.get("href")) for token in inner if token.type == "link_open"]
    assert links == ["https://a.org"]
    pictures = {str(token.attrs.get("src")) for token in inner if token.type == "image"}
    assert pictures == {name for name in FILES if name.endswith(".png")}
    assert not [token for token in inner if token.type == "em_open"][3:]
    headings = [tokens[k + 1].content for k, t in enumerate(tokens) if t.type == "heading_open"]
    assert [heading for heading in headings if heading.startswith("h")] == []
    assert max(map(len, text.splitlines())) < 3000
    assert mlcroissant.Dataset(str(tmp_path / "croissant.json"))


def test_numbers_of_no_sense(latents: Path, tmp_path: Path) -> None:
    store = forge(open_store(latents), rate_bpp=[None, np.inf, -1.0, 1e300, np.nan, *[0.5] * 7])
    usual = forge(open_store(latents), rate_bpp=[None] * 5 + [0.5] * 7)
    assert draw_figures(store, {}, None) == draw_figures(usual, {}, None), "others are not drawn"
    codec = store.header.codec
    assert codec is not None
    table = (1e300, *codec.scale_table[1:])
    header = store.header.model_copy(
        update={"codec": codec.model_copy(update={"scale_table": table})}
    )
    write_card(replace(store, header=header), tmp_path)
    json.loads((tmp_path / "statistics.json").read_text(), parse_constant=pytest.fail)


def test_images_with_terms(latents: Path, tmp_path: Path) -> None:
    store = open_store(latents)
    source = store.header.source.model_copy(update={"kind": "imagenet"})
    store = replace(store, header=store.header.model_copy(update={"source": source}))
    with pytest.raises(StoreError, match="name it with --license"):
        write_card(store, tmp_path / "card")
    assert not (tmp_path / "card").exists()
    write_card(store, tmp_path / "card", license=License("other", "imagenet", "https://a.org"))
    data = DatasetCard.load(tmp_path / "card" / "README.md").data.to_dict()
    assert "non-commercial research" in data["extra_gated_prompt"]
    assert "checkbox" in data["extra_gated_fields"].values()
    assert data["license"] == "other"
    assert data["source_datasets"] == ["extended|imagenet-1k"]


def test_refusals(latents: Path, tmp_path: Path) -> None:
    store = open_store(latents)
    for inside in (latents, latents / "y_hat"):
        with pytest.raises(StoreError, match="inside the store"):
            write_card(store, inside)
    with pytest.raises(StoreIncompleteError, match="is not complete"):
        write_card(replace(store, manifest=None), tmp_path)
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(StoreError, match="is not a card that latentset wrote"):
        write_card(store, tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_files_of_others_stay(latents: Path, tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("mine")
    assert write_card(open_store(latents), tmp_path) == FILES
    assert (tmp_path / "LICENSE").read_text() == "mine"


def test_a_manifest_that_changes(latents: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(latents, tmp_path / "STORE"))
    store = open_store(path)
    os.truncate(path / "manifest.json", 0)
    with pytest.raises(StoreCorruptError):
        write_card(store, tmp_path / "card")


def test_the_command(latents: Path, tmp_path: Path, wide_terminal: None) -> None:
    def run(*options: str) -> Any:
        return CliRunner().invoke(app, ["card", str(latents), *options])

    terms = tmp_path / "terms.txt"
    terms.write_text("Be kind.\n")
    result = run("-o", str(tmp_path / "card"), "--license-file", str(terms))
    assert result.exit_code == 0
    assert "LICENSE, README.md, croissant.json" in result.output
    assert (tmp_path / "card" / "LICENSE").read_text() == "Be kind.\n"
    assert run("-o", str(tmp_path / "card")).exit_code == 0
    assert sorted(read(tmp_path / "card")) == FILES, "nothing of the earlier card is left"
    result = run("--license", "mit", "--license-name", "x")
    assert result.exit_code == 2
    assert "--license-name is for a licence without an identifier" in result.output


def test_the_command_verifies(latents: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(latents, tmp_path / "STORE"))

    def run() -> Any:
        return CliRunner().invoke(
            app, ["card", str(store), "--verify", "--address", "hf://datasets/a/b"]
        )

    assert run().exit_code == 0
    readme = (tmp_path / "STORE.card" / "README.md").read_text()
    assert "all of the store was verified" in readme
    assert "latentset pull hf://datasets/a/b" in readme
    shard = store / "z_hat" / "c" / "0" / "0"  # which a card does not read
    content = bytearray(shard.read_bytes())
    content[0] ^= 1
    shard.write_bytes(content)
    with pytest.raises(StoreCorruptError, match="is not sound: z_hat/c/0/0"):
        raise run().exception
