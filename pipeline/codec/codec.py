"""A codec, loaded: photographs in, latents out."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import CodecGraphError, FetchError
from latentset.datasets.store.header import CodecInfo
from latentset.pipeline.codec.allowed_ops import check_codec_ops, check_latent_ops
from latentset.pipeline.codec.catalogue import locate_codec, read_record, record_path
from latentset.pipeline.codec.constants import (
    list_scale_tables,
    read_code_table,
    read_constants,
    read_z_offset,
)
from latentset.pipeline.codec.decoders import skip_coding
from latentset.pipeline.codec.graph import Graph, TensorRef, divide_exactly, extract, flatten
from latentset.pipeline.codec.integer_network import find_exact_limit
from latentset.pipeline.codec.metagraph import CodecFile, Signature, read_codec_file
from latentset.pipeline.codec.program import Program
from latentset.pipeline.codec.selfcheck import (
    SelfCheck,
    check_sizes,
    check_symbols,
    check_synthesis,
    make_test_photographs,
)
from latentset.pipeline.codec.signatures import Signatures, producer_ops_of
from latentset.pipeline.codec.structure import Structure, find_structure
from latentset.pipeline.codec.synthesis import SizeRole, Synthesis, find_size_roles
from latentset.pipeline.codec.tables import find_scales
from latentset.pipeline.tensorflow_setup import environment

LATENT_TENSORS = ("y_hat", "scale_index", "z_hat")
"""The tensors that a caller may name, in the order in which they are computed."""


@dataclass(frozen=True)
class Latents:
    """The latents of a batch of photographs of one size."""

    y_hat: NDArray[np.int32]
    """(N, h, w, C)."""
    scale_index: NDArray[np.int32]
    """(N, h, w, C), places in the codec's scale table."""
    z_hat: NDArray[np.int32]
    """(N, hz, wz, Cz), symbols: the value is the symbol plus the channel's offset."""


@dataclass(frozen=True)
class GraphReport:
    """What was found in a codec's graph, for people."""

    size_bytes: int
    sender: Signature
    receiver: Signature | None
    encoders: Mapping[str, str]
    """Range-encode node of ``y_hat`` and ``z_hat``, with its op type."""
    op_counts: Mapping[str, int]
    """Op types of the sub-graph that computes latents."""
    scale_distance: float
    """Largest total variation distance of y's rows to the Gaussians of the scale table."""
    exact_limit: int | None
    """Magnitude of z_hat up to which h_s is exact in integers, so that the scale index is the same
    on every device; None: h_s computes with fractions, or may pass what float32 holds."""


class Codec:
    """A scale hyperprior, ready to encode.

    ::

        x -> g_a -> y -> y_hat                          (range-encoded with sigma_hat)
                    |
                    h_a -> z -> z_hat -> h_s -> scale index i, sigma_hat = scale_table[i]

    Source:
        Balle, Minnen, Singh, Hwang, Johnston: "Variational image compression with a scale
        hyperprior", ICLR 2018, arXiv 1802.01436.
    """

    info: CodecInfo
    """What a store keeps of the codec."""
    report: GraphReport
    """What ``latentset codec inspect`` prints."""
    self_check: SelfCheck | None
    """Result of the check at load; None where it was skipped."""

    def __init__(
        self,
        file: CodecFile,
        *,
        tensors: Mapping[str, str] | None = None,
        threads: int = 1,
        self_check: bool = True,
    ) -> None:
        """Check, import and try a codec; see ``load_codec``."""
        try:
            self._load(file, dict(tensors or {}), threads, self_check)
        except CodecGraphError as error:
            if str(error).startswith(f"{file.name}: "):
                raise
            raise CodecGraphError(f"{file.name}: {error}") from error

    def _load(self, file: CodecFile, named: dict[str, str], threads: int, self_check: bool) -> None:
        self._file, self._threads = file, threads
        self._signatures = Signatures(file, threads)
        producer_ops = producer_ops_of(file)
        image = TensorRef.parse(file.input_tensor)

        whole = file.metagraph.graph_def
        ports = [*file.sender.nodes(), *(file.receiver.nodes() if file.receiver else [])]
        check_codec_ops(file.name, extract(whole, ports), whole)
        sender = extract(whole, file.sender.nodes())
        graph = Graph(flatten(sender, file.sender.nodes()))

        structure = find_structure(graph, image)
        graph, decoded_z = skip_coding(graph, structure)
        refs = _latent_refs(graph, structure, named)
        latents = graph.extract([*(ref.node for ref in refs.values()), image.node])
        check_latent_ops(file.name, latents)
        latents = divide_exactly(latents)

        constants = read_constants(graph, structure, decoded_z, producer_ops)
        self._y_table = read_code_table(structure.y, constants)
        self._z_table = read_code_table(structure.z, constants)
        scales, distance = find_scales(
            self._y_table, list_scale_tables(graph, structure, self._y_table.rows)
        )
        names = {key: str(ref) for key, ref in refs.items()}
        self._program = Program(
            latents,
            [str(image)],
            [names[key] for key in LATENT_TENSORS],
            threads=threads,
            image=str(image),
            producer_ops=producer_ops,
        )
        self._free_batch = True
        self.report = GraphReport(
            size_bytes=file.size_bytes,
            sender=file.sender,
            receiver=file.receiver,
            encoders={
                "y_hat": f"{structure.y.op} {structure.y.node}",
                "z_hat": f"{structure.z.op} {structure.z.node}",
            },
            op_counts=Counter(node.op for node in latents.node),
            scale_distance=distance,
            exact_limit=find_exact_limit(graph, structure.scale_index, structure.z.symbols),
        )
        sizes = check_sizes(self._run)
        if self._z_table.rows != sizes.z_channels:
            raise CodecGraphError(
                f"z_hat has {sizes.z_channels} channels and its range coder "
                f"{self._z_table.rows} rows; one a channel was expected"
            )
        self._free_batch = sizes.free_batch
        self._together = self._free_batch and environment()["device"] != "CPU"
        self.info = CodecInfo(
            name=file.name,
            sha256=file.sha256,
            form=structure.form,
            tensors={"input_image": str(image), **names},
            channels=sizes.channels,
            z_channels=sizes.z_channels,
            scale_table=tuple(float(s) for s in scales),
            z_offset=read_z_offset(graph, structure, constants, sizes.z_channels, decoded_z),
            y_downsampling=sizes.y_downsampling,
            z_downsampling=sizes.z_downsampling,
        )
        self.self_check = check_symbols(self) if self_check else None
        self._program.restart()

    @property
    def free_batch(self) -> bool:
        """Whether the graph takes several photographs at once."""
        return self._free_batch

    def encode(self, images: NDArray[np.uint8]) -> Latents:
        """Compute the latents of photographs.

        On a CPU they are the same for any number of photographs and of threads. oneDNN adds up a
        convolution in another order for another batch where it finds that faster (seen: small
        transforms, images below 192x192), and now and then a symbol at a rounding boundary flips.
        So they go through the graph one by one, which costs next to nothing. On a GPU they go
        together, and nothing is promised: the store's provenance names the device.

        Args:
            images: uint8 (N, H, W, 3), RGB.

        Raises:
            CodecGraphError: The graph fails on this size, or yields latents of another size than
                ``info`` promises.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(
                f"expected photographs uint8 (N, H, W, 3), got {images.dtype} {images.shape}"
            )
        if self._together or len(images) == 1:
            latents = self._run(images)
        else:
            parts = [self._run(images[i : i + 1]) for i in range(len(images))]
            latents = Latents(
                *(np.concatenate([getattr(p, key) for p in parts]) for key in LATENT_TENSORS)
            )
        count, height, width = images.shape[:3]
        expected = (count, *self.info.y_size(height, width), self.info.channels)
        z_expected = (count, *self.info.z_size(height, width), self.info.z_channels)
        for key, shape in (("y_hat", expected), ("scale_index", expected), ("z_hat", z_expected)):
            found = getattr(latents, key).shape
            if found != shape:
                raise CodecGraphError(
                    f"{self.info.name}: for photographs of {height}x{width} expected {key} of "
                    f"shape {shape}, got {found}"
                )
        return latents

    def rate_bits(self, latents: Latents) -> NDArray[np.float64]:
        """Return the bits that the range coder spends on each photograph.

        Computed from the symbols and the codec's own tables, symbols beyond the tables included.
        Real strings are a few bytes longer: they end on whole bytes.

        Args:
            latents: As from ``encode``.

        Returns:
            float64 (N,).
        """
        y_bits, z_bits = self.symbol_bits(latents)
        return y_bits + z_bits

    def symbol_bits(self, latents: Latents) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the bits of y and of z of each photograph, float64 (N,) each."""
        channel = np.arange(latents.z_hat.shape[3], dtype=np.int32)
        # One photograph at a time: the tables' bits are eight bytes a symbol.
        y_bits = [
            self._y_table.bits(y, index).sum()
            for y, index in zip(latents.y_hat, latents.scale_index, strict=True)
        ]
        z_bits = [self._z_table.bits(z, channel).sum() for z in latents.z_hat]
        return np.array(y_bits, np.float64), np.array(z_bits, np.float64)

    def sender(self, image: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """Encode one photograph into strings; see ``Signatures.sender``."""
        return self._signatures.sender(image)

    def receiver(self, channels: list[NDArray[Any]]) -> NDArray[np.uint8]:
        """Decode what ``sender`` returned; see ``Signatures.receiver``."""
        return self._signatures.receiver(channels)

    def decode(
        self, y_hat: NDArray[Any], z_hat: NDArray[Any], size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """Turn latents back into photographs, as ``receiver`` does with strings, but without any.

        On a CPU one by one, as ``encode``: a batch may add up in another order.

        Args:
            y_hat: Integers (N, h, w, C).
            z_hat: Integers (N, hz, wz, Cz), symbols; used only where the synthesis needs them.
            size: Height and width of the photographs, pixels.

        Returns:
            uint8 (N, H, W, 3), RGB.

        Raises:
            CodecGraphError: The codec has no receiver, its symbols cannot be told in it, or it
                fails.
        """
        if self._together or len(y_hat) == 1:
            return self._synthesis.run(y_hat, z_hat, size)
        parts = [
            self._synthesis.run(y_hat[k : k + 1], z_hat[k : k + 1], size) for k in range(len(y_hat))
        ]
        return np.concatenate(parts)

    def check_decoding(self) -> None:
        """Find the synthesis; with the self-check, hold it against the receiver's own images.

        ``decode`` does so when it is first called; a job asks before anything is written.

        Raises:
            CodecGraphError: The codec cannot decode, or decodes otherwise than its receiver.
        """
        _ = self._synthesis

    @cached_property
    def _synthesis(self) -> Synthesis:
        """Find the synthesis; with the self-check, hold it against the receiver's own images."""
        image = make_test_photographs()[0]
        height, width = image.shape[:2]
        sizes: dict[SizeRole, tuple[int, int]] = {
            "image": (height, width),
            "y": self.info.y_size(height, width),
            "z": self.info.z_size(height, width),
        }
        roles = find_size_roles(self._file.sender, self.sender(image), sizes)
        try:
            made = Synthesis(
                self._file,
                roles,
                threads=self._threads,
                producer_ops=producer_ops_of(self._file),
            )
            if self.self_check is not None:
                check_synthesis(made.run, self)
        except CodecGraphError as error:
            raise CodecGraphError(f"{self.info.name}: {error}") from error
        return made

    def _run(self, images: NDArray[np.uint8]) -> Latents:
        return Latents(
            *(
                _integers(key, value)
                for key, value in zip(LATENT_TENSORS, self._program.run(images), strict=True)
            )
        )


def load_codec(
    name_or_path: str,
    *,
    tensors: Mapping[str, str] | None = None,
    threads: int = 1,
    cache: Path | None = None,
    self_check: bool = True,
) -> Codec:
    """Load a codec.

    Its file is read and its ops are checked before any of it is imported. Then the tensors of the
    latents are found, their part of the graph is imported onto a placeholder of free batch size,
    and what was found is checked against the strings that the codec's own sender makes.

    Args:
        name_or_path: A metagraph file, or a name that ``latentset codec list`` shows.
        tensors: Names to use instead of what would be found, for any of ``y_hat``,
            ``scale_index`` and ``z_hat``.
        threads: Threads within one op. Two processes of one thread are faster than one of two.
        cache: Folder of downloaded codecs, if not the usual one.
        self_check: Whether to compare with real strings. A worker may skip it when the same file
            has been checked before.

    Raises:
        CodecNotFoundError: There is no such codec.
        CodecGraphError: The file is not a scale hyperprior that can be used.
        ForbiddenOpError: The file holds an op that is not allowed.
        FetchError: The file differs from the one recorded when it was fetched.
    """
    path = locate_codec(name_or_path, cache)
    file = read_codec_file(path)
    recorded = read_record(path)
    if recorded not in (None, file.sha256):
        raise FetchError(
            f"{path} is not the file that was fetched: expected the SHA-256 {recorded} "
            f"({record_path(path)}), got {file.sha256}. Remove it and fetch it again"
        )
    return Codec(file, tensors=tensors, threads=threads, self_check=self_check)


def _latent_refs(
    graph: Graph, structure: Structure, named: Mapping[str, str]
) -> dict[str, TensorRef]:
    refs = {
        "y_hat": structure.y.symbols,
        "scale_index": structure.scale_index,
        "z_hat": structure.z.symbols,
    }
    for key, name in named.items():
        if key not in refs:
            raise CodecGraphError(
                f"unknown tensor {key!r}: expected one of {', '.join(LATENT_TENSORS)}"
            )
        refs[key] = TensorRef.parse(name)
        graph.node(refs[key].node)
    return refs


def _integers(key: str, value: NDArray[Any]) -> NDArray[np.int32]:
    if value.ndim != 4:
        raise CodecGraphError(
            f"expected {key} to have the shape (N, h, w, channels), it has {value.shape}. If the "
            f"wrong tensor was found, name the right one"
        )
    integers = value.astype(np.int32)
    if value.dtype.kind not in "iuf" or (integers != value).any():
        raise CodecGraphError(
            f"expected {key} to hold integers, it holds {value.dtype} values that are none"
        )
    return integers
