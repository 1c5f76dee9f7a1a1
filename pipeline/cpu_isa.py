"""The vector instructions that compute latents, chosen before TensorFlow is imported.

oneDNN takes the best that a CPU has unless it is told otherwise, and another order of additions
gives other symbols where a value is at a rounding boundary. So a job names one level for all of its
workers. This module imports no TensorFlow.
"""

import os
import platform
import sys
from enum import StrEnum
from importlib import import_module

from latentset.datasets.errors import CpuIsaError

VARIABLE = "LATENTSET_CPU_ISA"
"""Environment variable that names the level; processes that are started inherit it."""


class CpuIsa(StrEnum):
    """Levels of vector instructions."""

    avx2 = "avx2"
    avx512 = "avx512"
    native = "native"


DEFAULT = CpuIsa.avx2
"""What every x86-64 CPU of a server or desktop has since about 2015."""

_ONEDNN_NAMES = {CpuIsa.avx2: "AVX2", CpuIsa.avx512: "AVX512_CORE", CpuIsa.native: None}
"""Values of ``ONEDNN_MAX_CPU_ISA``; None lets oneDNN choose."""

_NUMPY_NAMES = {CpuIsa.avx2: ("AVX2", "FMA3"), CpuIsa.avx512: ("AVX512_SKX",), CpuIsa.native: ()}
"""What a CPU needs for each level: oneDNN silently uses less where it is not there."""

_OVERRIDDEN = (
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
    "TF_SET_ONEDNN_FPMATH_MODE",
)
"""Environment variables that would change the bytes; all but the first are removed."""


def fix_cpu_isa(level: str) -> None:
    """Choose the vector instructions of this process and of those that it starts.

    Raises CpuIsaError for no :class:`CpuIsa`, where the CPU lacks it, or where TensorFlow runs
    with another one.
    """
    wanted = _require(level)
    running = _running_level()
    if running not in (None, wanted):
        raise CpuIsaError(
            f"{platform.node()}: TensorFlow was imported with the vector instructions {running!r}, "
            f"and {wanted.value!r} is wanted, too late to change: start the process (the Dask "
            "worker) again, and import latentset before tensorflow"
        )
    if running is None:
        for name in _OVERRIDDEN:
            os.environ.pop(name, None)
        if maximum := _ONEDNN_NAMES[wanted]:
            os.environ["ONEDNN_MAX_CPU_ISA"] = maximum
    os.environ[VARIABLE] = wanted.value


def choose_cpu_isa() -> CpuIsa:
    """Return the level that the environment names, or the default where this CPU has it."""
    named = os.environ.get(VARIABLE)
    if named:
        return _require(named)
    return CpuIsa.native if _missing(DEFAULT) else DEFAULT


def _require(level: str) -> CpuIsa:
    if level not in set(CpuIsa):
        raise CpuIsaError(f"--cpu-isa, {VARIABLE}: expected {', '.join(CpuIsa)}, got {level!r}")
    wanted = CpuIsa(level)
    if missing := _missing(wanted):
        raise CpuIsaError(
            f"{platform.node()} cannot compute with --cpu-isa {level}: {missing}. Use machines "
            "that can, or --cpu-isa native, with which symbols may depend on the machine"
        )
    return wanted


def _missing(level: CpuIsa) -> str:
    """What this CPU lacks for a level; empty if nothing."""
    if level is CpuIsa.native:
        return ""
    machine = platform.machine()
    if machine.lower() not in ("x86_64", "amd64"):
        return f"its CPU is {machine}, and only x86-64 has other levels than native"
    features = import_module("numpy.core._multiarray_umath").__cpu_features__
    lacking = [name for name in _NUMPY_NAMES[level] if not features.get(name)]
    return f"its CPU has no {' and no '.join(lacking)}" if lacking else ""


def _running_level() -> str | None:
    """The level of the TensorFlow of this process; None if it is not imported."""
    setup = sys.modules.get("latentset.pipeline.tensorflow_setup")
    if setup is not None and hasattr(setup, "CPU_ISA"):
        return str(setup.CPU_ISA)
    if "tensorflow" not in sys.modules:
        return None
    maximum = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return next((k.value for k, name in _ONEDNN_NAMES.items() if name == maximum), maximum)
