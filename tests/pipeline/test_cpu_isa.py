"""The vector instructions are those that were chosen, or the process is refused."""

import os
import platform
import subprocess
import sys
from importlib import import_module

import pytest

from latentset.datasets.errors import CpuIsaError
from latentset.pipeline import cpu_isa
from latentset.pipeline.cpu_isa import VARIABLE, choose_cpu_isa, fix_cpu_isa

CONVOLVE = (
    "from latentset.pipeline.tensorflow_setup import environment, tf; "
    "tf.nn.conv2d(tf.ones((1, 8, 8, 8)), tf.ones((5, 5, 8, 8)), 1, 'SAME'); "
    "print(environment().get('cpu_isa'))"
)
OTHERS = {
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "DNNL_MAX_CPU_ISA": "SSE41",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "TF_SET_ONEDNN_FPMATH_MODE": "BF16",
}
"""What a user may have in the environment."""

with_avx2 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64")
    or not import_module("numpy.core._multiarray_umath").__cpu_features__["AVX2"],
    reason="this CPU has no AVX2",
)


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    dropped = {VARIABLE, *cpu_isa._OVERRIDDEN}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={k: v for k, v in os.environ.items() if k not in dropped} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@with_avx2
def test_avx2_is_what_onednn_uses_whatever_the_environment_says() -> None:
    done = run(CONVOLVE, ONEDNN_VERBOSE="1", **OTHERS)
    assert "cpu,isa:Intel AVX2\n" in done.stdout, done.stderr
    assert "avx2" in done.stdout.splitlines()


def test_native_removes_what_the_environment_says() -> None:
    limited = run(CONVOLVE, ONEDNN_VERBOSE="1", LATENTSET_CPU_ISA="native", **OTHERS)
    free = run(CONVOLVE, ONEDNN_VERBOSE="1", LATENTSET_CPU_ISA="native")

    def used(done: subprocess.CompletedProcess[str]) -> list[str]:
        lines = [line.rpartition(",")[0] for line in done.stdout.splitlines()]  # without times
        return [line for line in lines if ",isa:" in line or ",exec," in line]

    assert used(limited) == used(free) != [], limited.stderr
    assert "None" in limited.stdout.splitlines()


def test_processes_inherit_the_choice() -> None:
    code = (
        "import os, subprocess, sys; from latentset.pipeline.cpu_isa import fix_cpu_isa; "
        f"fix_cpu_isa('native'); subprocess.run([sys.executable, '-c', {CONVOLVE!r}], check=True)"
    )
    assert run(code).stdout == "None\n"


@with_avx2
def test_tensorflow_under_another_level_is_refused() -> None:
    import_it = "import latentset.pipeline.tensorflow_setup; "
    fix_it = "from latentset.pipeline.cpu_isa import fix_cpu_isa; fix_cpu_isa('avx2')"
    done = run(import_it + fix_it, LATENTSET_CPU_ISA="native")
    assert "imported with the vector instructions 'native'" in done.stderr
    assert "'avx2' is wanted, too late to change" in done.stderr
    assert run(import_it + fix_it).returncode == 0


@with_avx2
def test_tensorflow_imported_by_others_is_refused() -> None:
    code = "import tensorflow, latentset.pipeline.tensorflow_setup"
    done = run(code, TF_ENABLE_ONEDNN_OPTS="1", ONEDNN_MAX_CPU_ISA="SSE41")
    assert "imported with the vector instructions 'SSE41'" in done.stderr
    assert run(code, TF_ENABLE_ONEDNN_OPTS="1", ONEDNN_MAX_CPU_ISA="AVX2").returncode == 0


@with_avx2
def test_a_cpu_that_lacks_it_is_refused() -> None:
    code = "from latentset.pipeline.cpu_isa import fix_cpu_isa; fix_cpu_isa('avx2')"
    done = run(code, NPY_DISABLE_CPU_FEATURES="AVX2")
    assert "cannot compute with --cpu-isa avx2: its CPU has no AVX2. Use machines" in done.stderr
    # What names no level takes what there is: codecs can be looked at everywhere.
    assert run(CONVOLVE, NPY_DISABLE_CPU_FEATURES="AVX2").stdout == "None\n"


def test_other_machines_have_native_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert choose_cpu_isa() == "native"
    with pytest.raises(CpuIsaError, match="is aarch64, and only x86-64 has other levels than nat"):
        fix_cpu_isa("avx2")


def test_a_level_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CpuIsaError, match="expected avx2, avx512, native, got 'sse'"):
        fix_cpu_isa("sse")
    monkeypatch.setenv(VARIABLE, "mmx")
    with pytest.raises(CpuIsaError, match=r"LATENTSET_CPU_ISA: expected avx2, .*, got 'mmx'"):
        choose_cpu_isa()
