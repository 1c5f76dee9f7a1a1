"""What runs codecs in a process: loaded once, kept until the process ends."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import CodecError, JobError
from latentset.datasets.sources.images import decoder_version
from latentset.datasets.store import Store
from latentset.datasets.store.digests import sha256_of
from latentset.datasets.store.header import CodecInfo, Header
from latentset.datasets.store.scales import number_scales
from latentset.pipeline.codec.catalogue import SUFFIX, locate_codec
from latentset.pipeline.codec.load.trial import try_once
from latentset.pipeline.cpu_isa import CpuIsa, fix_cpu_isa
from latentset.pipeline.jobs.settings import Software, software_of


class Coder(Protocol):
    """What jobs need of a codec, as :class:`latentset.pipeline.codec.load.codec.Codec` has it."""

    @property
    def info(self) -> CodecInfo:
        """What the latents are."""

    def encode(self, images: NDArray[np.uint8], /) -> Any:
        """Encode images (N, H, W, 3) to ``y_hat``, ``scale_index`` and ``z_hat``."""

    def rate_bits(self, latents: Any, /) -> NDArray[np.float64]:
        """Bits of each image (N)."""

    def decode(
        self, y_hat: NDArray[Any], z_hat: NDArray[Any], size: tuple[int, int], /
    ) -> NDArray[np.uint8]:
        """Decode symbols (N, h, w, C) and (N, hz, wz, Cz) to images (N, H, W, 3) of a size."""

    def check_decoding(self) -> None:
        """Find what decodes, and compare it with the codec's own receiver."""


@dataclass(frozen=True)
class Engine:
    """How a process loads a codec and describes itself; sent to workers by name."""

    load: Callable[..., Coder]
    """Takes a codec's name or path, and ``self_check=``; one process a job checks it."""
    environment: Callable[[], Mapping[str, str]]
    """Names what computes: the fields of ``Software`` but the decoder."""
    identify: Callable[[str], tuple[str, str]]
    """Gives a codec's name and SHA-256 without loading it; CodecNotFoundError if there is none."""
    fix_cpu_isa: Callable[[str], None] | None = None
    """Chooses the vector instructions; called before ``load`` and ``environment``."""
    try_first: Callable[[str], None] | None = None
    """Loads a codec in a process of its own; called before workers load it."""


def _load_with_tensorflow(codec: str, /, *, self_check: bool) -> Coder:
    from latentset.pipeline.codec.load.codec import load_codec

    return load_codec(codec, threads=1, self_check=self_check)


def _tensorflow_environment() -> Mapping[str, str]:
    from latentset.pipeline.tensorflow_setup import environment

    return environment()


def _identify_file(codec: str) -> tuple[str, str]:
    path = locate_codec(codec)
    return path.name.removesuffix(SUFFIX), sha256_of(path.read_bytes())


def _try_file(codec: str) -> None:
    path = locate_codec(codec)
    try_once(path, sha256_of(path.read_bytes()), tensors={})


TENSORFLOW = Engine(
    _load_with_tensorflow, _tensorflow_environment, _identify_file, fix_cpu_isa, _try_file
)
"""The engine of real jobs. TensorFlow is imported when it is first used."""

NO_CODEC = "none"
"""Given as the name of a codec: the images themselves are stored."""


def _plain_environment() -> Mapping[str, str]:
    return {"tensorflow": "", "tensorflow_compression": "", "onednn": "0", "device": "CPU"}


IMAGES = Engine(_load_with_tensorflow, _plain_environment, _identify_file)
"""The engine of jobs that store the images themselves: no codec is loaded, and no TensorFlow."""

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


def load_planned(engine: Engine, name: str, header: Header) -> Coder | None:
    """Load the codec of a plan on a worker, which must compute what the others do.

    None for images that are stored as they are.

    Raises:
        JobError: It has other software or another codec, or cannot use the job's vector
            instructions.
    """
    expected = software_of(header)
    if engine.fix_cpu_isa is not None:
        engine.fix_cpu_isa(expected.cpu_isa or CpuIsa.native)
    software = read_software(engine)
    if software != expected:
        raise JobError(
            f"this worker has {software}, but the job was planned with {expected}. "
            f"{header.noun.capitalize()} could differ: give every worker the client's environment"
        )
    planned = header.codec
    if planned is None:
        return None
    codec = load_once(engine, name, planned.sha256)
    # Latents may have been encoded by an earlier version, which described the codec otherwise.
    encodes = header.pixels is None
    if codec.info.sha256 != planned.sha256 or (encodes and number_scales(codec.info) != planned):
        raise JobError(
            f"this worker's codec {name} is {codec.info.sha256[:12]}…, but the job was planned "
            f"with {planned.sha256[:12]}…: give every worker the same file"
        )
    return codec


def load_encoder_of(store: Store, info: CodecInfo, codec: str | None, engine: Engine) -> Coder:
    """Load the codec that a store was encoded with, by its own name if ``codec`` is None."""
    name = codec or info.name
    _, sha256 = engine.identify(name)
    if sha256 != info.sha256:
        raise CodecError(
            f"{store.location} was encoded by {info.name} with sha256 {info.sha256}, but "
            f"{name} has {sha256}: give the codec's file with --codec"
        )
    return engine.load(name, self_check=True)


def read_software(engine: Engine) -> Software:
    """Describe what this process computes with."""
    return Software.model_validate({**engine.environment(), "decoder": decoder_version()})
