"""TensorFlow is imported with the settings that make latents reproducible."""

import os
import subprocess
import sys

SETTINGS = ("TF_ENABLE_ONEDNN_OPTS", "TF_OVERRIDE_GLOBAL_THREADPOOL", "TF_CPP_MIN_LOG_LEVEL")


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in SETTINGS}
    return subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", code],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_onednn_is_on() -> None:
    done = _python(
        "from latentset.pipeline.tensorflow_setup import environment; "
        "from tensorflow.python.framework import test_util; "
        "print(environment(), test_util.IsMklEnabled())"
    )
    assert done.returncode == 0, done.stderr
    assert "'onednn': '1'" in done.stdout
    assert "True" in done.stdout


def test_what_the_user_set_is_kept_and_stamped() -> None:
    done = _python(
        "from latentset.pipeline.tensorflow_setup import environment; print(environment())",
        TF_ENABLE_ONEDNN_OPTS="0",
    )
    assert "'onednn': '0'" in done.stdout
    assert "'tensorflow': '2.14.1'" in done.stdout
    assert "'tensorflow_compression': '2.14.1'" in done.stdout


def test_tensorflow_first_is_noticed() -> None:
    done = _python("import tensorflow, latentset.pipeline.tensorflow_setup")
    assert done.returncode == 1
    assert "RuntimeWarning: tensorflow was imported before" in done.stderr


def test_range_coders_are_imported_when_asked_for() -> None:
    done = _python(
        "import sys; from latentset.pipeline.tensorflow_setup import tf; "
        "print('tensorflow_compression' in sys.modules); "
        "from latentset.pipeline.tensorflow_setup import tfc; print(tfc.__name__)"
    )
    assert done.stdout.split() == ["False", "tensorflow_compression"], done.stderr
