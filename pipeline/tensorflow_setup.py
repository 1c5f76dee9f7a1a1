"""TensorFlow, imported the one way that gives the same latents on every machine.

Modules of this folder take TensorFlow from here and not from ``tensorflow``::

    from latentset.pipeline.tensorflow_setup import tf, tfc

so that the environment variables below are set before its first import, which reads them once.
``tfc`` (tensorflow-compression) is imported when first asked for: latents do not need it.

oneDNN is what makes latents reproducible: with it a convolution gives the same bits for any batch
size and any number of threads, without it symbols at a rounding boundary flip. TensorFlow turns it
on by itself on some processors only. Which vector instructions it uses is fixed too (``cpu_isa``).
"""

import gc
import os
import sys
import warnings
from typing import Any

from latentset.datasets.errors import MissingEnvironmentError
from latentset.pipeline.cpu_isa import CpuIsa, choose_cpu_isa, fix_cpu_isa

SETTINGS = {
    "TF_ENABLE_ONEDNN_OPTS": "1",
    # Each session has its own threads; else the first session of a process decides for all.
    "TF_OVERRIDE_GLOBAL_THREADPOOL": "1",
    # Of a GPU: h_s adds integers up to 2 ** 24, and TF32 has eleven bits.
    "NVIDIA_TF32_OVERRIDE": "0",
    # Failures come as exceptions; what is printed below that is noise about missing GPUs.
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
"""Environment variables and their values; one that is set already is left as it is."""

if "tensorflow" in sys.modules and os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "1":
    warnings.warn(
        "tensorflow was imported before latentset.pipeline.tensorflow_setup, so oneDNN may be "
        "off and latents may depend on the batch size: import latentset first, or set "
        "TF_ENABLE_ONEDNN_OPTS=1",
        RuntimeWarning,
        stacklevel=2,
    )
for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)
_chosen = choose_cpu_isa()
fix_cpu_isa(_chosen)
CPU_ISA = _chosen
"""The vector instructions of this process, from now on."""

_collects = gc.isenabled()
gc.disable()  # a quarter of the import's time would go into looking for garbage in what stays
try:
    with warnings.catch_warnings():
        # TensorFlow 2.14 uses what its own dependencies have since deprecated.
        warnings.simplefilter("ignore")
        import tensorflow as tf
except ModuleNotFoundError as error:
    raise MissingEnvironmentError(
        "codecs need TensorFlow, which this environment lacks: use the one made with "
        "pip install '.[encode]' in its clone"
    ) from error
finally:
    gc.freeze()
    if _collects:
        gc.enable()

__all__ = ["CPU_ISA", "environment", "tf", "tfc"]  # noqa: F822 - tfc comes from __getattr__


def __getattr__(name: str) -> Any:
    """Import tensorflow-compression (and with it its ops) when ``tfc`` is first used."""
    if name != "tfc":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_compression

    return tensorflow_compression


def environment() -> dict[str, str]:
    """Describe what computes the latents, for a store's provenance.

    ``onednn`` is "1" or "0", ``device`` "CPU" or the name of the first GPU; there is no
    ``cpu_isa`` where it is ``native``.
    """
    from importlib.metadata import version

    gpus = tf.config.list_physical_devices("GPU")
    device = "CPU"
    if gpus:
        device = str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))
    found = {
        "tensorflow": str(tf.__version__),
        "tensorflow_compression": version("tensorflow-compression"),
        "onednn": "1" if os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1" else "0",
        "device": device,
    }
    return found if CPU_ISA is CpuIsa.native else {**found, "cpu_isa": CPU_ISA.value}
