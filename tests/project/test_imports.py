"""Which part may import which framework, proved in fresh interpreters.

A hook stands in front of every other importer and fails on a banned name, installed or not, so the
tests say the same in both environments.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
API = "src/latentset"

TORCH = ("torch", "torchvision")
TENSORFLOW = ("tensorflow", "tensorflow_compression")
HEAVY = (*TORCH, *TENSORFLOW, "numpy", "zarr", "pyarrow", "dask", "distributed", "tensorstore")

HOOK = """
import importlib, sys
banned = {banned!r}
class Ban:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in banned:
            return
        frame = sys._getframe()
        while frame := frame.f_back:
            if frame.f_code.co_filename == "<frozen importlib.util>":
                return  # a library only asks whether it is installed
        raise RuntimeError("banned import: " + name)
sys.meta_path.insert(0, Ban())
for name in {modules!r}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        # The other environment's framework: no ban was broken up to there.
        ours = (error.name or "latentset").partition(".")[0] == "latentset"
        if ours and type(error).__name__ != "MissingEnvironmentError":
            raise
"""


def _modules(folder: str) -> list[str]:
    names = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[2:] if folder == API else parts
        names.append(".".join(("latentset", *(p for p in parts if p != "__init__"))))
    assert names, f"no module below {folder}/"
    return names


def _import_with_ban(
    modules: list[str], banned: tuple[str, ...]
) -> subprocess.CompletedProcess[str]:
    program = HOOK.format(banned=banned, modules=modules)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("folder", "banned"),
    [
        ("pipeline", TORCH),
        ("train", TENSORFLOW),
        ("paper", TENSORFLOW),
        ("cli", HEAVY),
        (API, TENSORFLOW),
        ("sharing", (*TORCH, *TENSORFLOW)),
        ("datasets", (*TORCH, *TENSORFLOW)),
    ],
)
def test_part_never_imports_the_other_framework(folder: str, banned: tuple[str, ...]) -> None:
    done = _import_with_ban(_modules(folder), banned)
    assert done.returncode == 0, done.stderr


def test_the_ban_can_fail(tmp_path: Path) -> None:
    (tmp_path / "offender.py").write_text("def f():\n    pass\nimport torch.nn\n")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    program += HOOK.format(banned=TORCH, modules=["offender"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode != 0
    assert "banned import: torch" in done.stderr


def test_help_imports_nothing_heavy() -> None:
    program = HOOK.format(banned=HEAVY, modules=["latentset.cli.main"])
    program += "\nsys.argv = ['latentset', '--help']\nsys.modules['latentset.cli.main'].main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "encode" in done.stdout


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("codec list", ""),
        (
            "codec fetch bmshj2018-hyperprior-msssim-22",
            "did you mean bmshj2018-hyperprior-msssim-2",
        ),
        ("codec inspect demo-hyperprior-mssim-4", "did you mean demo-hyperprior-msssim-4"),
        ("codec evaluate . nosuch", "no codec 'nosuch'"),
        ("codec time nosuch", "no codec 'nosuch'"),
        ("codec train /nosuch -o x --lmbda 1 --steps 1", "/nosuch: expected a folder of images"),
        ("train nosuch --store x", "no recipe 'nosuch'"),
    ],
)
def test_arguments_are_looked_at_before_a_framework_is_imported(command: str, shown: str) -> None:
    program = HOOK.format(banned=(*TORCH, *TENSORFLOW), modules=["latentset.cli.main"])
    program += f"\nsys.argv = {['latentset', *command.split()]!r}"
    program += "\nsys.modules['latentset.cli.main'].main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "banned" not in done.stderr
    assert (done.returncode, shown in done.stderr) == (1 if shown else 0, True), done.stderr
