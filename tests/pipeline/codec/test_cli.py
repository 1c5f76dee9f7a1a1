"""The commands ``latentset codec ...``."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from latentset.cli.codec import app
from latentset.datasets.errors import CodecGraphError, CodecNotFoundError, TrainingError
from latentset.pipeline.codec.load.codec import load_codec
from latentset.pipeline.tensorflow_setup import tf
from tests.makers.odd_images import write_odd_images

pytestmark = pytest.mark.usefixtures("wide_terminal")

NAME = "bmshj2018-hyperprior-msssim-2"


def _run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_list_says_what_is_ready(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.metagraph").write_bytes(b"x" * 100_000)
    output = _run("list", "--cache", str(tmp_path)).output
    lines = (re.split(r"\s*[│┃]\s*", line)[1:-1] for line in output.splitlines())
    rows = {row[0]: row[1:] for row in lines if row}
    assert rows[NAME] == ["published", "0.1 MB", "in the cache"]
    assert rows["bmshj2018-hyperprior-mse-8"] == ["published", "", "to be fetched"]
    assert rows["demo-hyperprior-msssim-4"][::2] == ["shipped", "ready"]
    assert str(tmp_path) in output


def test_the_environment_names_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTSET_CACHE", str(tmp_path))
    assert f"cache folder: {tmp_path}" in _run("list").output


def test_fetch(tmp_path: Path, v2_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for name in ("mine", "yours"):
        (mirror / f"{name}.metagraph").write_bytes(v2_path.read_bytes())
    options = ("--cache", str(tmp_path / "cache"), "--url-prefix", mirror.as_uri())
    output = _run("fetch", "mine", "yours", *options).output
    assert f"fetched mine: {v2_path.stat().st_size} bytes" in output
    assert (tmp_path / "cache" / "yours.metagraph").read_bytes() == v2_path.read_bytes()
    assert "was there already: " in _run("fetch", "mine", *options).output


def test_fetch_says_which_names_there_are(tmp_path: Path) -> None:
    with pytest.raises(CodecNotFoundError, match="--url-prefix says where another codec is"):
        _run("fetch", "nonsense", "--cache", str(tmp_path))


def test_inspect(v1_path: Path) -> None:
    output = _run("inspect", str(v1_path)).output
    for expected in (
        "tiny-v1",
        "tfc1 (tensorflow-compression 1)",
        "8 channels, one position per 16 pixels",
        "6 channels, one position per 64 pixels",
        "0.11 to 256, 64 scales",
        "any size",
        "self-check",
        "range-encoded, one row a scale, by UnboundedIndexRangeEncode",
        " compress/while/UnboundedIndexRangeEncode",
        "compute_indexes",
        "Computed with fractions",
        "sender in",
        "(1, ?, ?, 3)",
        "receiver out",
        "output_image",
        "Conv2D 1",
    ):
        assert expected in output, output
    assert re.search(r"SHA-256 +[0-9a-f]{64}", output)
    assert re.search(r"latents imply (\d+) bits, the bitstreams have (\d+) \(\+0\.\d\d%\)", output)


def _tensors(output: str) -> dict[str, list[str]]:
    """Read the first table of ``inspect``: what each tensor is, and the lines about it."""
    lines = [line.rstrip() for line in output.splitlines()]
    first, last = lines.index("Tensors"), lines.index("Signatures")
    rows: dict[str, list[str]] = {}
    start = lines[first + 2].index("name, and why")
    for line in filter(None, lines[first + 4 : last]):
        what, text = line[:start].strip(), line[start:].strip()
        rows.setdefault(what or list(rows)[-1], []).append(text)
    return rows


def test_inspect_says_which_tensor_is_which_and_why(published_tiny_path: Path) -> None:
    codec = load_codec(str(published_tiny_path))
    offset = codec.info.z_offset
    y, z = "entropy_model/entropy_model", "side_entropy_model/side_entropy_model"
    stacked = "decompress/TensorArrayStack/TensorArrayGatherV3:0"
    assert _tensors(_run("inspect", str(published_tiny_path)).output) == {
        "input image": ["input_image:0", "input of 'sender'"],
        "y_hat": [
            f"{y}_2/Cast:0",
            "symbols of y: range-encoded, one row a scale, by UnboundedIndexRangeEncode",
            f"{y}_2/compress/while/UnboundedIndexRangeEncode",
        ],
        "scale_index": [
            "GridAlign/strided_slice:0",
            "index of that op, the row of each symbol of y. Follows from z_hat in exact integers, "
            f"|z_hat| up to {codec.info.h_s_exact_to}: the same on every CPU",
        ],
        "z_hat": [
            f"{z}_2/Cast:0",
            "symbols of z: range-encoded, one row a channel, by UnboundedIndexRangeEncode",
            f"{z}_2/compress/while/UnboundedIndexRangeEncode",
        ],
        "z_hat, decoded": [
            f"{z}_3/{stacked}",
            "replaced by the symbols, since coding loses nothing; in the sender yielded by "
            "UnboundedIndexRangeDecode",
            f"{z}_3/decompress/while/UnboundedIndexRangeDecode",
        ],
        "offset of z": [
            f"{z}_3/Cast:0",
            f"added to the decoded symbols: {min(offset):g} to {max(offset):g} over the channels",
        ],
        "size of image": [
            "strided_slice:0",
            "channel:2 of 'sender': 136x200 for an image of 136x200",
        ],
        "size of y": ["strided_slice_1:0", "channel:3 of 'sender': 9x13 for an image of 136x200"],
        "size of z": ["strided_slice_2:0", "channel:4 of 'sender': 3x4 for an image of 136x200"],
        "y_hat, received": [
            f"{y}_3/{stacked}",
            "'decode' starts here, from stored symbols; in the receiver yielded by "
            "UnboundedIndexRangeDecode",
            f"{y}_3/decompress/while/UnboundedIndexRangeDecode",
        ],
        "output image": [
            "GridAlign_1/strided_slice:0",
            "output of 'receiver', float32; decoded from latents it is the same",
        ],
    }


@pytest.mark.parametrize("columns", [80, 120])
def test_inspect_cuts_no_name_where_the_terminal_is_narrow(
    columns: int, published_tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    output = _run("inspect", str(published_tiny_path)).output
    assert max(map(len, output.splitlines())) <= columns
    assert "…" not in output
    for port in load_codec(str(published_tiny_path)).file.sender.outputs:
        assert port.tensor in re.sub(r"\s", "", output)
    decoder = "side_entropy_model/side_entropy_model_3/decompress/while/UnboundedIndexRangeDecode"
    assert decoder in "".join(_tensors(output)["z_hat, decoded"])


def test_inspect_of_a_codec_that_cannot_decode(v1_path: Path, tmp_path: Path) -> None:
    metagraph = tf.compat.v1.MetaGraphDef.FromString(v1_path.read_bytes())
    del metagraph.signature_def["receiver"]
    path = tmp_path / "one-way.metagraph"
    path.write_bytes(metagraph.SerializeToString())
    output = _run("inspect", str(path)).output
    (name, why) = _tensors(output)["output image"]
    assert name == "none"
    assert "this codec cannot decode: one-way: it has no signature 'receiver'" in why
    assert re.search(r"\n +receiver +none", output)


def test_inspect_of_a_published_name(published_path: Path) -> None:
    output = _run("inspect", str(published_path)).output
    assert re.search(r"\nlisting +channels, tables and form of h_s are those", output)
    assert re.search(r"\nits fit +the rows of y's table are at most 0\.\d\d% off", output)


def test_inspect_with_a_named_tensor(v1_path: Path) -> None:
    found = re.search(r"\n +y_hat +(\S+:0)", _run("inspect", str(v1_path)).output)
    assert found is not None
    assert found[1] in _run("inspect", str(v1_path), "--tensor", f"y_hat={found[1]}").output
    before = found[1].replace("Cast", "Floor")
    output = _run("inspect", str(v1_path), "--tensor", f"y_hat={before}").output
    assert _tensors(output)["y_hat"] == [before, "named by the caller"]
    with pytest.raises(CodecGraphError, match="no node 'other'"):
        _run("inspect", str(v1_path), "--tensor", "z_hat=other:0")
    with pytest.raises(CodecGraphError, match="expected KEY=NAME"):
        _run("inspect", str(v1_path), "--tensor", "z_hat")


def test_train_passes_what_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from latentset.pipeline.codec.train import training
    from latentset.pipeline.codec.train.training_settings import TrainingSettings

    seen: list[Any] = []
    monkeypatch.setattr(training, "train_codec", lambda settings, console: seen.append(settings))
    output = tmp_path / "my.metagraph"
    more = tmp_path / "more"
    more.mkdir()
    arguments = ["train", str(tmp_path), str(more), "-o", str(output), "--lmbda", "30"]
    arguments += ["--steps", "9"]
    _run(*arguments, "--distortion", "mse", "-N", "48", "-M", "72", "--seed", "5")
    (settings,) = seen
    expected = TrainingSettings(
        images=(tmp_path, more),
        output=output,
        lmbda=30,
        steps=9,
        distortion="mse",
        N=48,
        M=72,
        seed=5,
    )
    assert settings == expected
    with pytest.raises(TrainingError, match=r"steps: .* greater than or equal to 1, got 0"):
        _run(*arguments[:-1], "0")


def test_every_training_setting_has_an_option() -> None:
    from latentset.pipeline.codec.train.training_settings import TrainingSettings

    text = _run("train", "--help").output
    other = {"images": "FOLDER", "N": "--filters", "M": "--channels"}
    for name in TrainingSettings.model_fields:
        assert other.get(name, "--" + name.replace("_", "-")) in text, name


def test_evaluate_finds_codecs_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from latentset.pipeline.codec import evaluation

    seen: list[tuple[Path, list[str]]] = []
    write_odd_images(tmp_path / "images")

    def evaluate(metagraph: Path, images: dict[str, Any], *, console: object) -> Any:
        seen.append((metagraph, list(images)))
        figures = evaluation.Figures(0.25, 0.9, 30.0)
        return evaluation.CodecFigures(metagraph.stem, figures, figures)

    monkeypatch.setattr(evaluation, "evaluate_codec", evaluate)
    images = str(tmp_path / "images")
    output = _run("evaluate", images, "demo-hyperprior-msssim-1", "--markdown").output
    assert "| demo-hyperprior-msssim-1 | 0.2500 |" in output
    assert "left out: bomb.png: too_large: " in output
    assert [(p.name, names) for p, names in seen] == [
        ("demo-hyperprior-msssim-1.metagraph", ["good.png"])
    ]
    with pytest.raises(CodecNotFoundError):
        _run("evaluate", str(tmp_path), "nothing", "--cache", str(tmp_path))
