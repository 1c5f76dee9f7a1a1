"""The programs of a codec: images to latents, symbols to images, and both with real strings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.allowed_ops import check_latent_ops
from latentset.pipeline.codec.load.decoders import (
    Decoder,
    Role,
    cut_receiver,
    find_receiver_decoders,
    placeholder_name,
)
from latentset.pipeline.codec.load.graph import Graph, TensorRef, extract, flatten
from latentset.pipeline.codec.load.metagraph import CodecFile, Signature
from latentset.pipeline.codec.load.program import Program
from latentset.pipeline.tensorflow_setup import tf

LATENT_TENSORS = ("y_hat", "scale_index", "z_hat")
"""The tensors that a caller may name, in the order in which they are computed."""

SizeRole = Literal["image", "y", "z"]
"""Of what an integer channel of the sender has height and width."""

_IMAGE = "latentset_image"


@dataclass(frozen=True)
class Latents:
    """The latents of a batch of images of one size."""

    y_hat: NDArray[np.int32]
    """(N, h, w, C)."""
    scale_index: NDArray[np.int32]
    """(N, h, w, C), locations in the codec's scale table."""
    z_hat: NDArray[np.int32]
    """(N, hz, wz, Cz), symbols: the value is the symbol plus the channel's offset."""

    @classmethod
    def join(cls, parts: Sequence["Latents"]) -> "Latents":
        """Join the latents of batches of one size."""
        return cls(*(np.concatenate([getattr(p, key) for p in parts]) for key in LATENT_TENSORS))


class Analysis:
    """The part of a sender that turns images into latents.

    Args:
        latents: ``GraphDef`` of the latents; its ops were checked.
        tensors: Those of ``LATENT_TENSORS``.
        file: The codec's file.
        threads: Threads within one op.
    """

    def __init__(
        self, latents: Any, tensors: Mapping[str, TensorRef], file: CodecFile, threads: int
    ) -> None:
        self._program = Program(
            latents,
            [file.input_tensor],
            [str(tensors[key]) for key in LATENT_TENSORS],
            threads=threads,
            image=file.input_tensor,
            producer_ops=file.producer_ops,
        )

    def restart(self) -> None:
        """Forget the sizes that were run; see ``Program.restart``."""
        self._program.restart()

    def run(self, images: NDArray[np.uint8]) -> Latents:
        """Compute the latents of images (N, H, W, 3).

        Raises:
            CodecGraphError: The graph fails, or yields no integers (N, h, w, channels).
        """
        return Latents(*map(_as_integers, LATENT_TENSORS, self._program.run(images)))


class Synthesis:
    """The part of a receiver that turns symbols into images.

    The receiver takes strings. What its range-decode ops yield are the symbols that a store holds,
    so the graph is cut there (``decoders``) and symbols are fed instead::

        strings -> range decoder -> | symbols of y -> cast -> g_s -> crop -> image
                                    | symbols of z -> ...

    Left are stock ops, as for the latents, and a free batch size.

    Args:
        file: The codec's file.
        roles: Of what the integer channels have the size, by their key (``find_size_roles``).
        threads: Threads within one op.

    Raises:
        CodecGraphError: The codec has no receiver, or its symbols cannot be found in it.
        ForbiddenOpError: The sub-graph needs an op that is not allowed.
    """

    takes: Mapping[Role, Decoder]
    """What it is fed with, and the range decoder of the receiver that yields it there."""

    def __init__(self, file: CodecFile, roles: Mapping[str, SizeRole], threads: int) -> None:
        if file.receiver is None:
            raise CodecGraphError("it has no signature 'receiver', so it cannot decode")
        receiver = file.receiver
        whole = extract(file.metagraph.graph_def, receiver.nodes())
        (output,) = receiver.outputs
        # The image may be the output of a function call, which loses its name when it is inlined.
        last = whole.node.add(name=_IMAGE, op="Identity", input=[output.tensor])
        last.attr["T"].type = tf.dtypes.as_dtype(output.dtype).as_datatype_enum
        graph = Graph(flatten(whole, [*receiver.nodes(), _IMAGE]))
        strings = [TensorRef.parse(p.tensor) for p in receiver.inputs if p.dtype == "string"]
        decoders = find_receiver_decoders(graph)
        reached = cut_receiver(graph, decoders, TensorRef(_IMAGE, 0), strings)
        check_latent_ops(file.name, reached)
        names = {node.name for node in reached.node}
        self.takes = {role: d for role, d in decoders.items() if placeholder_name(role) in names}
        ports = [port for port in receiver.inputs if TensorRef.parse(port.tensor).node in names]
        unknown = [port.key for port in ports if port.key not in roles]
        if unknown:
            raise CodecGraphError(
                f"the receiver's input {unknown[0]!r} is neither the size of the image nor that of "
                "y or z"
            )
        self._sizes = tuple((roles[port.key], np.dtype(port.dtype)) for port in ports)
        symbols = [f"{placeholder_name(role)}:0" for role in self.takes]
        self._program = Program(
            reached,
            [*symbols, *(port.tensor for port in ports)],
            [f"{_IMAGE}:0"],
            threads=threads,
            producer_ops=file.producer_ops,
        )

    def run(
        self, y_hat: NDArray[Any], z_hat: NDArray[Any], size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """Turn symbols (N, h, w, C) and (N, hz, wz, Cz) into images (N, H, W, 3) of a size.

        Raises:
            CodecGraphError: The graph fails, or yields no images of that size.
        """
        symbols: dict[Role, NDArray[Any]] = {"y_hat": y_hat, "z_hat": z_hat}
        of_role = {"image": size, "y": y_hat.shape[1:3], "z": z_hat.shape[1:3]}
        values = [symbols[role] for role in self.takes]
        values += [np.array(of_role[role], dtype) for role, dtype in self._sizes]
        (images,) = self._program.run(*values)
        expected = (len(y_hat), *size, 3)
        if images.shape != expected:
            raise CodecGraphError(f"expected images of shape {expected}, got {images.shape}")
        return as_pixels(images)


def import_signature(file: CodecFile, signature: Signature, threads: int) -> Program:
    """Import a function of a codec's file as published; its ops must have been checked."""
    return Program(
        extract(file.metagraph.graph_def, signature.nodes()),
        [port.tensor for port in signature.inputs],
        [port.tensor for port in signature.outputs],
        threads=threads,
        producer_ops=file.producer_ops,
    )


def find_size_roles(
    sender: Signature, sent: list[NDArray[Any]], sizes: Mapping[SizeRole, tuple[int, int]]
) -> dict[str, SizeRole]:
    """Find what the integer channels of a sender have the size of, by what they were for one image.

    Args:
        sender: The signature.
        sent: Its outputs for the image, in their order.
        sizes: Height and width of the image and of its grids; no two are equal.

    Returns:
        Roles by the key of a channel, without the channels that have none.
    """
    roles: dict[str, SizeRole] = {}
    for port, value in zip(sender.outputs, sent, strict=True):
        for role, size in sizes.items():
            if value.dtype.kind in "iu" and value.shape == (2,) and tuple(value.tolist()) == size:
                roles[port.key] = role
    return roles


def as_pixels(images: NDArray[Any]) -> NDArray[np.uint8]:
    """Round what a receiver yields, uint8 or floats from 0 to 255, to uint8."""
    if images.dtype == np.uint8:
        return images
    pixels: NDArray[np.uint8] = np.clip(np.round(images), 0, 255).astype(np.uint8)
    return pixels


def _as_integers(key: str, value: NDArray[Any]) -> NDArray[np.int32]:
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
