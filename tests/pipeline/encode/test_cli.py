from pathlib import Path

from PIL import Image
from typer.testing import CliRunner

from latentset.cli.main import app


def test_a_store_inside_its_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(tmp_path / "images" / "a" / "1.png")
    command = ["encode", str(tmp_path / "images"), str(tmp_path / "images" / "store")]
    result = CliRunner().invoke(app, [*command, "--codec", "demo-hyperprior-msssim-1"])
    assert result.exit_code == 2
    assert "is inside SOURCE" in " ".join(result.output.replace("│", " ").split())
    assert not (tmp_path / "images" / "store").exists()
