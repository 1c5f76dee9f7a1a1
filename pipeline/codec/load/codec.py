"""A codec, loaded: images in, latents out.

``load_codec`` reads the file (``metagraph``), checks its ops and finds its latents (``sender``),
imports their part of the graph (``program``) and compares them with bitstreams (``selfcheck``).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from latentset.datasets.errors import CodecGraphError, describe_invalid
from latentset.datasets.store.header import CodecInfo
from latentset.pipeline.codec.catalogue import CodecFacts, check_facts, check_record, locate_codec
from latentset.pipeline.codec.load.code_tables import find_scales
from latentset.pipeline.codec.load.decoders import DecodedZ
from latentset.pipeline.codec.load.graph import TensorRef
from latentset.pipeline.codec.load.graph_structure import Structure
from latentset.pipeline.codec.load.metagraph import CodecFile, errors_of, read_codec_file
from latentset.pipeline.codec.load.program import (
    LATENT_TENSORS,
    Latents,
    Program,
    import_signature,
)
from latentset.pipeline.codec.load.selfcheck import (
    SIZE,
    SelfCheck,
    check_bits,
    check_shapes,
    is_batch_free,
    make_test_images,
    string_bits,
)
from latentset.pipeline.codec.load.sender import read_sender
from latentset.pipeline.codec.load.synthesis import SizeRole, Synthesis, as_pixels
from latentset.pipeline.codec.load.trial import try_once
from latentset.pipeline.tensorflow_setup import environment


@dataclass(frozen=True)
class GraphReport:
    """What was found in a codec's graph, for people."""

    structure: Structure
    decoded_z: DecodedZ | None
    z_offset: list[TensorRef]
    facts: CodecFacts
    scale_distance: float
    """Largest total variation distance of y's rows to the Gaussians of the scale table."""
    op_counts: Mapping[str, int]
    """Of what computes latents."""


class Codec:
    """A scale hyperprior (Balle et al., ICLR 2018), ready to encode; see ``load_codec``.

    ::

        x -> g_a -> y -> y_hat                          (range-encoded with sigma_hat)
                    |
                    h_a -> z -> z_hat -> h_s -> scale index i, sigma_hat = scale_table[i]
    """

    file: CodecFile
    info: CodecInfo
    report: GraphReport
    free_batch: bool
    self_check: SelfCheck | None
    """None where it was skipped."""

    def __init__(
        self,
        file: CodecFile,
        *,
        tensors: Mapping[str, str] | None = None,
        threads: int = 1,
        self_check: bool = True,
    ) -> None:
        self.file, self._threads = file, threads
        with errors_of(file.name):
            self._load(tensors or {}, self_check)

    def _load(self, named: Mapping[str, str], self_check: bool) -> None:
        sender = read_sender(self.file, named)
        structure = sender.structure
        self._y_table = sender.code_table(structure.y)
        self._z_table = sender.code_table(structure.z)
        self._analysis = Program(
            sender.latents,
            [self.file.input_tensor],
            [str(sender.tensors[key]) for key in LATENT_TENSORS],
            threads=self._threads,
            image=self.file.input_tensor,
            producer_ops=self.file.producer_ops,
        )
        images = make_test_images()
        singles = [self._compute(image[np.newaxis]) for image in images]
        y_downsampling, z_downsampling = check_shapes(singles[0])
        channels, z_channels = singles[0].y_hat.shape[3], singles[0].z_hat.shape[3]
        self.free_batch = is_batch_free(self._compute, images, singles)
        self._together = self.free_batch and environment()["device"] != "CPU"
        if (rows := self._z_table.rows) != z_channels:
            raise CodecGraphError(f"expected {z_channels} rows in z's table, got {rows}")
        scales, distance = find_scales(self._y_table, sender.scale_tables(self._y_table.rows))
        tensors = {"input_image": structure.image, **sender.tensors}
        try:
            self.info = CodecInfo(
                name=self.file.name,
                sha256=self.file.sha256,
                form=structure.form,
                tensors={key: str(ref) for key, ref in tensors.items()},
                channels=channels,
                z_channels=z_channels,
                scale_table=tuple(float(s) for s in scales),
                z_offset=sender.z_offset(z_channels),
                h_s_exact_to=sender.h_s_exact_to(),
                y_downsampling=y_downsampling,
                z_downsampling=z_downsampling,
            )
        except ValidationError as error:
            found = describe_invalid(error)
            raise CodecGraphError(f"a store's header cannot hold this codec: {found}") from error
        self.report = GraphReport(
            structure=structure,
            decoded_z=sender.decoded_z,
            z_offset=sender.z_offset_tensors,
            facts=sender.facts(channels),
            scale_distance=distance,
            op_counts=Counter(node.op for node in sender.latents.node),
        )
        check_facts(self.file.name, self.report.facts)
        self.self_check = None
        if self_check:
            implied = [float(bits[0]) for bits in self.symbol_bits(self.encode(images[:1]))]
            self.self_check = check_bits(implied, string_bits(self.sender(images[0])))
        self._analysis.restart()

    def encode(self, images: NDArray[np.uint8]) -> Latents:
        """Compute the latents of images, uint8 (N, H, W, 3), RGB.

        On a CPU they are the same for any number of images and of threads. oneDNN adds up a
        convolution in another order for another batch where that is faster (seen: small transforms,
        images below 192x192), and now and then a symbol at a rounding boundary flips. So images
        pass one by one, which costs next to nothing. On a GPU they pass together, and nothing is
        promised. CodecGraphError where the graph fails on this size.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(
                f"expected images uint8 (N, H, W, 3), got {images.dtype} {images.shape}"
            )
        batches = self._batches(len(images))
        latents = Latents.join([self._compute(images[batch]) for batch in batches])
        count, height, width = images.shape[:3]
        sizes = self.sizes(height, width)
        y_shape = (count, *sizes["y"], self.info.channels)
        z_shape = (count, *sizes["z"], self.info.z_channels)
        for key, expected in zip(LATENT_TENSORS, (y_shape, y_shape, z_shape), strict=True):
            if (found := getattr(latents, key).shape) != expected:
                raise CodecGraphError(
                    f"{self.info.name}: expected {key} of shape {expected}, got {found}"
                )
        return latents

    def sizes(self, height: int, width: int) -> dict[SizeRole, tuple[int, int]]:
        """Return height and width of an image and of its latents."""
        y, z = self.info.y_size(height, width), self.info.z_size(height, width)
        return {"image": (height, width), "y": y, "z": z}

    def _compute(self, images: NDArray[np.uint8]) -> Latents:
        return Latents.from_arrays(self._analysis.run(images))

    def _batches(self, count: int) -> list[slice]:
        return [slice(None)] if self._together else [slice(k, k + 1) for k in range(count)]

    def rate_bits(self, latents: Latents) -> NDArray[np.float64]:
        """Return the bits of each image, float64 (N,); real bitstreams end on whole bytes."""
        return np.add(*self.symbol_bits(latents))

    def symbol_bits(self, latents: Latents) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the bits of y and of z of each image, float64 (N,) each."""
        channel = np.arange(latents.z_hat.shape[3], dtype=np.int32)
        # One image at a time: the tables' bits are eight bytes a symbol.
        pairs = zip(latents.y_hat, latents.scale_index, strict=True)
        y_bits = [self._y_table.bits(y, index).sum() for y, index in pairs]
        z_bits = [self._z_table.bits(z, channel).sum() for z in latents.z_hat]
        return np.array(y_bits, np.float64), np.array(z_bits, np.float64)

    def decode(
        self, y_hat: NDArray[Any], z_hat: NDArray[Any], size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """Decode symbols (N, h, w, C) and (N, hz, wz, Cz) to images of a size, as ``receiver``."""
        batches = self._batches(len(y_hat))
        return np.concatenate([self.synthesis.run(y_hat[b], z_hat[b], size) for b in batches])

    def check_decoding(self) -> None:
        """Raise CodecGraphError if the codec cannot decode, or not as its receiver does."""
        _ = self.synthesis

    @cached_property
    def synthesis(self) -> Synthesis:
        """The receiver behind its range decoder."""
        with errors_of(self.info.name):
            synthesis = Synthesis(self.file, self.size_roles, self._threads)
            if self.self_check is not None:
                image = make_test_images()[1]
                latents = self.encode(image[np.newaxis])
                decoded = synthesis.run(latents.y_hat, latents.z_hat, SIZE)[0]
                if not np.array_equal(decoded, self.receiver(self.sender(image))):
                    raise CodecGraphError(
                        "self-check: the image decoded from latents is not the one that the "
                        "receiver makes"
                    )
            return synthesis

    @cached_property
    def size_roles(self) -> Mapping[str, SizeRole]:
        """Of what the sender's integer outputs have height and width, by their key."""
        # No two of the sizes are equal.
        role_of = {size: role for role, size in self.sizes(*SIZE).items()}
        sent = zip(self.file.sender.outputs, self.sender(make_test_images()[0]), strict=True)
        return {
            port.key: role_of[tuple(value.tolist())]
            for port, value in sent
            if value.dtype.kind in "iu" and value.ndim == 1 and tuple(value.tolist()) in role_of
        }

    def sender(self, image: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """Encode one image, uint8 (H, W, 3), RGB, to arrays of strings and of sizes."""
        return self._sender.run(image[np.newaxis])

    def receiver(self, channels: list[NDArray[Any]]) -> NDArray[np.uint8]:
        """Decode what ``sender`` returned to an image, uint8 (H, W, 3), RGB."""
        image = self._receiver.run(*channels)[0]
        if image.ndim != 4 or image.shape[0] != 1 or image.shape[3] != 3:
            raise CodecGraphError(
                f"{self.file.name}: expected the receiver to yield (1, H, W, 3), got {image.shape}"
            )
        return as_pixels(image[0])

    @cached_property
    def _sender(self) -> Program:
        return import_signature(self.file, self.file.sender, self._threads)

    @cached_property
    def _receiver(self) -> Program:
        if self.file.receiver is None:
            raise CodecGraphError(f"{self.file.name}: it has no signature 'receiver'")
        sides = self.file.sender.outputs, self.file.receiver.inputs
        sent, taken = (", ".join(port.dtype for port in ports) for ports in sides)
        if sent != taken:
            raise CodecGraphError(
                f"{self.file.name}: expected 'receiver' to take what 'sender' yields ({sent}), it "
                f"takes {taken or 'nothing'}"
            )
        return import_signature(self.file, self.file.receiver, self._threads)


def load_codec(
    name_or_path: str,
    *,
    tensors: Mapping[str, str] | None = None,
    threads: int = 1,
    cache: Path | None = None,
    self_check: bool = True,
) -> Codec:
    """Load a codec from a metagraph file, or by a name that ``latentset codec list`` shows.

    ``tensors`` names those to use instead of those found, by their key in ``LATENT_TENSORS``. Two
    processes of one thread are faster than one of two. The self-check is needed once a file; with
    it a file from elsewhere is loaded in another process first, once (``trial``).

    CodecNotFoundError if there is no such codec, CodecGraphError if it is no scale hyperprior,
    ForbiddenOpError for an op not allowed, FetchError if the file is not the one fetched first.
    """
    path = locate_codec(name_or_path, cache)
    file = read_codec_file(path)
    check_record(path, file.sha256)
    if self_check:
        try_once(path, file.sha256, tensors=tensors or {}, cache=cache)
    return Codec(file, tensors=tensors, threads=threads, self_check=self_check)
