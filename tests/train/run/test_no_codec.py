"""Training from latents never decodes: it opens no codec, and nothing that could run one."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from latentset.train.recipe.recipe import Recipe

MakeRecipe = Callable[..., Recipe]

WATCH = """
import sys
from pathlib import Path
opened = set()
sys.addaudithook(lambda event, args: opened.add(str(args[0])) if event == "open" else None)
{more}
from latentset.train.run.fit import fit
from latentset.train.recipe.recipe import Recipe
fit(Recipe.model_validate_json(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]))
codecs = sorted(path for path in opened if path.endswith(".metagraph"))
banned = ("latentset.pipeline", "tensorflow", "tensorflow_compression", "compressai")
modules = sorted(name for name in sys.modules if name.startswith(banned))
sys.exit(f"codecs: {{codecs}}, modules: {{modules}}" if codecs or modules else 0)
"""


def train_watched(recipe: Recipe, folder: Path, more: str) -> subprocess.CompletedProcess[str]:
    text = folder / "recipe.json"
    text.write_text(recipe.model_dump_json())
    return subprocess.run(
        [sys.executable, "-c", WATCH.format(more=more), str(text), str(folder / "run")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_training_touches_no_codec(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(data__test_split="test", schedule__epochs=1, schedule__decay_epochs=[])
    done = train_watched(recipe, tmp_path, "")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "result.json").exists()


def test_it_would_be_seen(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(schedule__epochs=1, schedule__decay_epochs=[])
    opening = "Path(sys.argv[1]).with_name('c.metagraph').open('wb')"
    done = train_watched(recipe, tmp_path, f"import latentset.pipeline; {opening}")
    assert done.returncode == 1
    assert "modules: ['latentset.pipeline']" in done.stderr
    assert "c.metagraph']" in done.stderr
