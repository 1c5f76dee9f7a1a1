"""Sizes and times of networks; `latentset models`: Table 2's columns for Table 3's settings."""

import json
from pathlib import Path
from statistics import median

import pytest
from pydantic import TypeAdapter
from typer.testing import CliRunner

from latentset.cli.main import app
from latentset.datasets.errors import RecipeError
from latentset.paper.network_cost import LEAST, measure_size, measure_times
from latentset.paper.recipes import load_recipe
from latentset.paper.table3_settings import SETTINGS, Setting
from latentset.train.models.networks import (
    AnyNetwork,
    CResNetNetwork,
    FACResNetNetwork,
    Network,
    ResNetNetwork,
)

GROUPS = {
    "Input": ["ŷ", "ŷ & σ̂*"],
    "FA Effect": ["FA-ResNet", "FA-cResNet*"],
    "FA Module": ["CAU", "FEU", "FA*"],
    "FA Position": ["pre*", "post"],
    "CAU Pooling Function": ["max", "avg", "max&avg", "1att", "2att*"],
    "CAU Position": ["pre*", "skip", "inner", "post"],
    "CAU Module": ["scale", "bias", "affine*"],
    "CAU Bottleneck Architecture": ["1fc", "r1", "r2", "r4", "r8", "r16*", "r32", "r64"],
    "FEU Architecture": [
        *("2/2/2", "1/2/3", "3/3/3", "2/3/4*", "4/4/4", "3/4/5*", "5/5/5", "4/5/6"),
    ],
}
"""Table 3's heads and columns, in order, with its stars."""


def test_the_settings_are_table_3s() -> None:
    found: dict[str, list[str]] = {}
    for setting in SETTINGS:
        found.setdefault(setting.group, []).append(setting.title + "*" * setting.default)

    assert found == GROUPS
    assert list(found) == list(GROUPS)
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS) == 37


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_can_be_named_on_the_command_line(setting: Setting, tmp_path: Path) -> None:
    """Every assignment changes the network, unless it is the default's."""
    path = tmp_path / "default.toml"
    path.write_text(
        'name = "default"\n[model]\nkind = "fa-cresnet"\n'
        "[data]\nbatch_size = 8\n[schedule]\nepochs = 1\nlearning_rate = 0.1\n"
    )
    default = load_recipe(str(path)).model

    model = load_recipe(str(path), setting.assignments).model

    assert {key: getattr(model, key) for key in setting.model} == setting.model
    two_defaults = setting.name == "feu-depth-3-4-5"  # of qualities above 1
    assert (model == default) == (setting.default and not two_defaults)


@pytest.mark.parametrize(
    ("network", "parameters", "giga_mult_adds", "pass_megabytes"),
    [
        (ResNetNetwork(kind="resnet", num_classes=23), 23_555_159, 4.087, 177.82),
        (
            FACResNetNetwork(kind="fa-cresnet", num_classes=23, channels=320, n=(3, 4, 5)),
            42_103_302,
            4.945,
            110.63,
        ),
        (CResNetNetwork(kind="cresnet", num_classes=23, channels=192), 23_555_064, 3.400, 96.06),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_counts_are_table_2s(
    network: Network, parameters: int, giga_mult_adds: float, pass_megabytes: float
) -> None:
    size = measure_size(network)

    assert size.parameters == parameters
    assert round(size.mult_adds / 1e9, 3) == giga_mult_adds
    assert round(size.pass_bytes / 1e6, 2) == pass_megabytes


@pytest.mark.parametrize(
    ("setting", "parameters"),
    [
        pytest.param({"fa": "feu"}, 37_544_195, id="a CAU less in each of four locations"),
        pytest.param({"r": 1}, 58_845_195, id="r = 1"),
    ],
)
def test_counts_of_ablations(setting: dict[str, object], parameters: int) -> None:
    """38,888,475 less or more what the CAUs of 192, 192, 1024 and 2048 channels have."""

    def cau(c: int, r: int) -> int:
        reduced = c // r
        return 2 * (c + 1 + c * reduced + reduced + 2 * reduced + reduced * c + c)

    caus = {r: sum(cau(c, r) for c in (192, 192, 1024, 2048)) for r in (1, 16)}
    by_hand = 38_888_475 - caus[16] + (caus[1] if "r" in setting else 0)
    network = FACResNetNetwork.model_validate(
        {"kind": "fa-cresnet", "num_classes": 23, "channels": 192, **setting}
    )

    assert measure_size(network).parameters == by_hand == parameters


def test_time_is_measured() -> None:
    network = CResNetNetwork(kind="cresnet", channels=4, num_classes=2, width=2, depths=(1, 1, 1))
    larger = network.model_copy(update={"width": 8})
    small, large = measure_times([(network, 8), (larger, 32)])
    assert min(len(small), len(large)) >= LEAST
    assert 1e-4 < median(small) < median(large) < 10


def test_the_documents_table_is_the_commands() -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    table = [row for row in rows if len(row) == 6 and row[2].startswith("`model.")]

    assert [(row[1], row[2]) for row in table] == [
        (s.title + " *" * s.default, " ".join(f"`{a}`" for a in s.assignments)) for s in SETTINGS
    ]
    for location, setting in enumerate(SETTINGS):
        if setting.name not in ("fa-position-post", "cau-bottleneck-1fc", "feu-depth-4-5-6"):
            continue  # counting all takes its time
        given = {"kind": "fa-cresnet", "num_classes": 23, "channels": 192, "n": (3, 4, 5)}
        adapter: TypeAdapter[Network] = TypeAdapter(AnyNetwork)
        size = measure_size(adapter.validate_python(given | setting.model))
        assert table[location][3:] == [
            f"{size.parameters:,}",
            f"{size.mult_adds / 1e9:.3f} G",
            f"{size.pass_bytes / 1e6:.2f} MB",
        ]


def test_the_command_lists_networks_and_settings(tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    options = ["--depth", "18", "--channels", "8", "--classes", "6", "--n", "1/1/2"]

    done = CliRunner().invoke(app, ["models", *options, "--json", str(file)])

    assert done.exit_code == 0, done.output
    rows = json.loads(file.read_text(encoding="utf-8"))
    assert [row["name"] for row in rows] == [
        *("resnet", "cresnet", "fa-cresnet"),
        *(setting.name for setting in SETTINGS),
    ]
    resnet_18, *_ = rows
    assert (
        resnet_18["parameters"] == 11_689_512 - (1000 - 6) * 513
    )  # torchvision's, of 1000 classes
    assert resnet_18["model"]["kind"] == "resnet"
    by_name = {row["name"]: row for row in rows}
    assert by_name["cau-bottleneck-r8"]["assignments"] == ["model.r=8"]
    assert by_name["fa-effect-resnet"]["model"]["n"] == [2, 3, 4, 5]
    assert by_name["input-y"]["model"]["n"] == [1, 1, 2]
    assert by_name["fa-cresnet"]["parameters"] == by_name["cau-position-pre"]["parameters"]
    lines = [line.split() for line in done.output.splitlines()]
    r8 = by_name["cau-bottleneck-r8"]
    assert [
        *("r8", f"{r8['parameters']:,}"),
        *(f"{r8['mult_adds'] / 1e9:.3f}", "G", f"{r8['pass_bytes'] / 1e6:.2f}", "MB"),
        "model.r=8",
    ] in lines
    # The default has a star, in Table 3 and alone among the networks.
    starred = [line[0] for line in lines if "*" in line[:-1]]
    titles = [s.title for s in SETTINGS if s.default]
    assert starred == ["FA-cResNet", *(title.partition(" ")[0] for title in titles)]
    # What --channels says reaches all networks of latents: first convolutions of 8 channels.
    for row in rows:
        of_pixels = row["model"]["kind"] in ("resnet", "fa-resnet")
        assert row["model"].get("channels") == (None if of_pixels else 8)
    assert all(f"model.n=[{n}]" in done.output for n in ("2,3,4,5", "4,5,6"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--n", "2,3,4"], "--n: expected three numbers such as 2/3/4, got '2,3,4'"),
        (["--n", "2/3"], "n.2: Field required"),
        (["--n", "2/0/4"], "n.1: Input should be greater than or equal to 1, got 0"),
        (["--depth", "20"], "depth: Input should be 18, 34, 50, 101 or 152, got 20"),
    ],
)
def test_impossible_sizes_are_refused(options: list[str], text: str) -> None:
    done = CliRunner().invoke(app, ["models", *options])

    assert isinstance(done.exception, RecipeError)
    assert text in str(done.exception)
