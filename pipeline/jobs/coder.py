"""What runs codecs in a process: loaded once, kept until the process ends."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import JobError
from latentset.datasets.sources.images import decoder_version
from latentset.datasets.store.header import CodecInfo, Header
from latentset.pipeline.cpu_isa import CpuIsa, fix_cpu_isa
from latentset.pipeline.jobs.settings import Software, software_of


class EncodedBatch(Protocol):
    """Latents of N images of one size, as :class:`latentset.pipeline.codec.load.codec.Latents`."""

    @property
    def y_hat(self) -> NDArray[Any]:
        """Integers (N, h, w, C)."""

    @property
    def scale_index(self) -> NDArray[Any]:
        """Integers (N, h, w, C)."""

    @property
    def z_hat(self) -> NDArray[Any]:
        """Integers (N, hz, wz, Cz)."""


class Coder(Protocol):
    """What jobs need of a codec, as :class:`latentset.pipeline.codec.load.codec.Codec` has it."""

    @property
    def info(self) -> CodecInfo:
        """What the latents are."""

    def encode(self, images: NDArray[np.uint8], /) -> EncodedBatch:
        """Encode images (N, H, W, 3)."""

    def rate_bits(self, latents: Any, /) -> NDArray[np.float64]:
        """Bits of each image (N)."""

    def decode(
        self, y_hat: NDArray[Any], z_hat: NDArray[Any], size: tuple[int, int], /
    ) -> NDArray[np.uint8]:
        """Decode symbols (N, h, w, C) and (N, hz, wz, Cz) to images (N, H, W, 3) of a size."""

    def check_decoding(self) -> None:
        """Find what decodes, and compare it with the codec's own receiver."""


class Loader(Protocol):
    """Loads a codec by name or path, for one thread; one process a job checks it."""

    def __call__(self, codec: str, /, *, self_check: bool) -> Coder:
        """Load it."""


@dataclass(frozen=True)
class Engine:
    """How a process loads a codec and describes itself; sent to workers by name."""

    load: Loader
    environment: Callable[[], Mapping[str, str]]
    """Names what computes: ``tensorflow``, ``tensorflow_compression``, ``onednn``, ``device``, and
    perhaps ``cpu_isa``."""
    fix_cpu_isa: Callable[[str], None] | None = None
    """Chooses the vector instructions; called before the others."""


def _load_with_tensorflow(codec: str, /, *, self_check: bool) -> Coder:
    from latentset.pipeline.codec.load.codec import load_codec

    return load_codec(codec, threads=1, self_check=self_check)


def _tensorflow_environment() -> Mapping[str, str]:
    from latentset.pipeline.tensorflow_setup import environment

    return environment()


TENSORFLOW = Engine(_load_with_tensorflow, _tensorflow_environment, fix_cpu_isa)
"""The engine of real jobs. TensorFlow is imported when it is first used."""

NO_CODEC = "none"
"""Given as the name of a codec: the images themselves are stored."""


def _no_codec(codec: str, /, *, self_check: bool) -> Coder:
    raise ValueError("images are stored without a codec")


def _plain_environment() -> Mapping[str, str]:
    return {"tensorflow": "", "tensorflow_compression": "", "onednn": "0", "device": "CPU"}


IMAGES = Engine(_no_codec, _plain_environment)
"""The engine of jobs that store the images themselves: there is no TensorFlow."""

_loading = threading.Lock()
_loaded: dict[tuple[Engine, str], Coder] = {}


def load_once(
    engine: Engine, codec: str, sha256: str | None = None, *, self_check: bool = False
) -> Coder:
    """Load a codec, or take the one that this process has loaded if it has this digest."""
    with _loading:
        found = _loaded.get((engine, codec))
        if found is None or found.info.sha256 != sha256:
            found = _loaded[engine, codec] = engine.load(codec, self_check=self_check)
        return found


def codec_differs(name: str, codec: Coder, planned: CodecInfo) -> JobError:
    """The error of a worker that has another codec than the client."""
    return JobError(
        f"this worker's codec {name} is {codec.info.sha256[:12]}…, but the job was planned with "
        f"{planned.sha256[:12]}…: give every worker the same file"
    )


def read_software(engine: Engine) -> Software:
    """Describe what this process computes with."""
    found = engine.environment()
    return Software(
        tensorflow=found["tensorflow"],
        tensorflow_compression=found["tensorflow_compression"],
        onednn=found["onednn"] == "1",
        device=found["device"],
        cpu_isa=found.get("cpu_isa"),
        decoder=decoder_version(),
    )


def require_software(engine: Engine, header: Header) -> None:
    """Make sure that this worker computes what the others do; before it computes anything.

    Raises:
        JobError: It has other software, or cannot use the job's vector instructions.
    """
    expected = software_of(header)
    if engine.fix_cpu_isa is not None:
        engine.fix_cpu_isa(expected.cpu_isa or CpuIsa.native)
    found = read_software(engine)
    if found != expected:
        raise JobError(
            f"this worker has {found}, but the job was planned with {expected}. "
            f"{header.noun.capitalize()} could differ: give every worker the client's environment"
        )
