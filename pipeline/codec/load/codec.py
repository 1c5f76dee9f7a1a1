"""A codec, loaded: images in, latents out."""

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
from latentset.pipeline.codec.catalogue import (
    CodecFacts,
    check_facts,
    locate_codec,
    read_record,
    record_path,
)
from latentset.pipeline.codec.load.constants import (
    find_z_offset,
    list_scale_tables,
    read_code_table,
    read_z_offset,
)
from latentset.pipeline.codec.load.decoders import DecodedZ
from latentset.pipeline.codec.load.graph import TensorRef
from latentset.pipeline.codec.load.integer_network import find_exact_limit
from latentset.pipeline.codec.load.metagraph import CodecFile, read_codec_file
from latentset.pipeline.codec.load.program import Program
from latentset.pipeline.codec.load.selfcheck import (
    SelfCheck,
    Sizes,
    check_sizes,
    check_symbols,
    check_synthesis,
    make_test_images,
)
from latentset.pipeline.codec.load.sender import LATENT_TENSORS, Sender, read_sender
from latentset.pipeline.codec.load.signatures import Signatures, producer_ops_of
from latentset.pipeline.codec.load.structure import Structure
from latentset.pipeline.codec.load.synthesis import SizeRole, Synthesis, find_size_roles
from latentset.pipeline.codec.load.tables import find_scales
from latentset.pipeline.tensorflow_setup import environment


@dataclass(frozen=True)
class Latents:
    """The latents of a batch of images of one size."""

    y_hat: NDArray[np.int32]
    """(N, h, w, C)."""
    scale_index: NDArray[np.int32]
    """(N, h, w, C), locations in the codec's scale table."""
    z_hat: NDArray[np.int32]
    """(N, hz, wz, Cz), symbols: the value is the symbol plus the channel's offset."""


@dataclass(frozen=True)
class GraphReport:
    """What was found in a codec's graph, for people."""

    structure: Structure
    decoded_z: DecodedZ | None
    """z as the sender decodes it again; None: it does not."""
    z_offset: tuple[TensorRef, ...]
    """The constants that the offset of z comes from."""
    facts: CodecFacts
    scale_distance: float
    """Largest total variation distance of y's rows to the Gaussians of the scale table."""
    op_counts: Mapping[str, int]
    """Op types of the sub-graph that computes latents."""


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

    file: CodecFile
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
        self.file, self._threads = file, threads
        self._signatures = Signatures(file, threads)
        sender = read_sender(file, named)
        self._y_table, self._z_table = (
            read_code_table(encoder, sender.constants)
            for encoder in (sender.structure.y, sender.structure.z)
        )
        self._program = self._import(sender)
        sizes = check_sizes(self._run)
        self._free_batch = sizes.free_batch
        self._together = self._free_batch and environment()["device"] != "CPU"
        self.info, self.report = self._describe(sender, sizes)
        check_facts(file.name, self.report.facts)
        self.self_check = check_symbols(self) if self_check else None
        self._program.restart()

    def _import(self, sender: Sender) -> Program:
        image = str(sender.structure.image)
        return Program(
            sender.latents,
            [image],
            [str(sender.tensors[key]) for key in LATENT_TENSORS],
            threads=self._threads,
            image=image,
            producer_ops=producer_ops_of(self.file),
        )

    def _describe(self, sender: Sender, sizes: Sizes) -> tuple[CodecInfo, GraphReport]:
        graph, structure, decoded_z = sender.graph, sender.structure, sender.decoded_z
        if self._z_table.rows != sizes.z_channels:
            raise CodecGraphError(
                f"z_hat has {sizes.z_channels} channels and its range coder "
                f"{self._z_table.rows} rows; one a channel was expected"
            )
        candidates = list_scale_tables(graph, structure, self._y_table.rows)
        scales, distance = find_scales(self._y_table, candidates)
        tensors = {"input_image": structure.image, **sender.tensors}
        info = CodecInfo(
            name=self.file.name,
            sha256=self.file.sha256,
            form=structure.form,
            tensors={key: str(ref) for key, ref in tensors.items()},
            channels=sizes.channels,
            z_channels=sizes.z_channels,
            scale_table=tuple(float(s) for s in scales),
            z_offset=read_z_offset(graph, structure, sender.constants, sizes.z_channels, decoded_z),
            h_s_exact_to=self._exact_limit(sender),
            y_downsampling=sizes.y_downsampling,
            z_downsampling=sizes.z_downsampling,
        )
        report = GraphReport(
            structure=structure,
            decoded_z=decoded_z,
            z_offset=tuple(find_z_offset(graph, structure, decoded_z)),
            facts=sender.facts(sizes.channels),
            scale_distance=distance,
            op_counts=Counter(node.op for node in sender.latents.node),
        )
        return info, report

    @staticmethod
    def _exact_limit(sender: Sender) -> int | None:
        structure, decoded_z = sender.structure, sender.decoded_z
        z, index = structure.z.symbols, structure.scale_index
        if (sender.tensors["z_hat"], sender.tensors["scale_index"]) != (z, index):
            return None  # other tensors were named
        offset = decoded_z.offset if decoded_z else None
        return find_exact_limit(sender.graph, z, index, structure.image, offset)

    @property
    def free_batch(self) -> bool:
        """Whether the graph takes several images at once."""
        return self._free_batch

    def encode(self, images: NDArray[np.uint8]) -> Latents:
        """Compute the latents of images.

        On a CPU they are the same for any number of images and of threads. oneDNN adds up a
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
                f"expected images uint8 (N, H, W, 3), got {images.dtype} {images.shape}"
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
                    f"{self.info.name}: for images of {height}x{width} expected {key} of "
                    f"shape {shape}, got {found}"
                )
        return latents

    def rate_bits(self, latents: Latents) -> NDArray[np.float64]:
        """Return the bits that the range coder spends on each image.

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
        """Return the bits of y and of z of each image, float64 (N,) each."""
        channel = np.arange(latents.z_hat.shape[3], dtype=np.int32)
        # One image at a time: the tables' bits are eight bytes a symbol.
        y_bits = [
            self._y_table.bits(y, index).sum()
            for y, index in zip(latents.y_hat, latents.scale_index, strict=True)
        ]
        z_bits = [self._z_table.bits(z, channel).sum() for z in latents.z_hat]
        return np.array(y_bits, np.float64), np.array(z_bits, np.float64)

    def sender(self, image: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """Encode one image into strings; see ``Signatures.sender``."""
        return self._signatures.sender(image)

    def receiver(self, channels: list[NDArray[Any]]) -> NDArray[np.uint8]:
        """Decode what ``sender`` returned; see ``Signatures.receiver``."""
        return self._signatures.receiver(channels)

    def decode(
        self, y_hat: NDArray[Any], z_hat: NDArray[Any], size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """Turn latents back into images, as ``receiver`` does with strings, but without any.

        On a CPU one by one, as ``encode``: a batch may add up in another order.

        Args:
            y_hat: Integers (N, h, w, C).
            z_hat: Integers (N, hz, wz, Cz), symbols; used only where the synthesis needs them.
            size: Height and width of the images, pixels.

        Returns:
            uint8 (N, H, W, 3), RGB.

        Raises:
            CodecGraphError: The codec has no receiver, its symbols cannot be told in it, or it
                fails.
        """
        if self._together or len(y_hat) == 1:
            return self.synthesis.run(y_hat, z_hat, size)
        parts = [
            self.synthesis.run(y_hat[k : k + 1], z_hat[k : k + 1], size) for k in range(len(y_hat))
        ]
        return np.concatenate(parts)

    def check_decoding(self) -> None:
        """Find the synthesis; with the self-check, hold it against the receiver's own images.

        ``decode`` does so when it is first called; a job asks before anything is written.

        Raises:
            CodecGraphError: The codec cannot decode, or decodes otherwise than its receiver.
        """
        _ = self.synthesis

    @cached_property
    def size_roles(self) -> Mapping[str, SizeRole]:
        """Of what the sender's integer outputs have height and width, by their key."""
        image = make_test_images()[0]
        height, width = image.shape[:2]
        sizes: dict[SizeRole, tuple[int, int]] = {
            "image": (height, width),
            "y": self.info.y_size(height, width),
            "z": self.info.z_size(height, width),
        }
        return find_size_roles(self.file.sender, self.sender(image), sizes)

    @cached_property
    def synthesis(self) -> Synthesis:
        """The receiver behind its range decoder; see ``check_decoding``."""
        try:
            made = Synthesis(
                self.file,
                self.size_roles,
                threads=self._threads,
                producer_ops=producer_ops_of(self.file),
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
