"""From symbols to images: the receiver of a codec, without its range decoder."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.allowed_ops import check_ops
from latentset.pipeline.codec.load.decoders import (
    PLACEHOLDERS,
    Decoder,
    Role,
    cut_receiver,
    find_receiver_decoders,
)
from latentset.pipeline.codec.load.graph import Graph, TensorRef, extract, flatten
from latentset.pipeline.codec.load.metagraph import CodecFile
from latentset.pipeline.codec.load.program import Program
from latentset.pipeline.tensorflow_setup import tf

SizeRole = Literal["image", "y", "z"]
"""Of what an integer channel of the sender has height and width."""

_IMAGE = "latentset_image"


class Synthesis:
    """The part of a receiver that turns symbols into images: stock ops and a free batch size.

    The graph is cut behind its range-decode ops (``decoders``)::

        strings -> range decoder -> | symbols of y -> cast -> g_s -> crop -> image
                                    | symbols of z -> ...
    """

    takes: Mapping[Role, Decoder]
    """The symbols that it is fed with, in place of decoders."""

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
        check_ops(reached)
        names = {node.name for node in reached.node}
        self.takes = {role: d for role, d in decoders.items() if PLACEHOLDERS[role].node in names}
        ports = [port for port in receiver.inputs if TensorRef.parse(port.tensor).node in names]
        unknown = [port.key for port in ports if port.key not in roles]
        if unknown:
            raise CodecGraphError(f"the receiver's input {unknown[0]!r} is not a size of x, y or z")
        self._sizes = tuple((roles[port.key], np.dtype(port.dtype)) for port in ports)
        fed = [str(PLACEHOLDERS[role]) for role in self.takes] + [port.tensor for port in ports]
        self._program = Program(
            reached, fed, [f"{_IMAGE}:0"], threads=threads, producer_ops=file.producer_ops
        )

    def run(
        self, y_hat: NDArray[Any], z_hat: NDArray[Any], size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """Turn symbols (N, h, w, C) and (N, hz, wz, Cz) into images (N, H, W, 3) of a size."""
        symbols: dict[Role, NDArray[Any]] = {"y_hat": y_hat, "z_hat": z_hat}
        sizes = {"image": size, "y": y_hat.shape[1:3], "z": z_hat.shape[1:3]}
        values = [symbols[role] for role in self.takes]
        values += [np.array(sizes[role], dtype) for role, dtype in self._sizes]
        (images,) = self._program.run(*values)
        expected = (len(y_hat), *size, 3)
        if images.shape != expected:
            raise CodecGraphError(f"expected images of shape {expected}, got {images.shape}")
        return as_pixels(images)


def as_pixels(images: NDArray[Any]) -> NDArray[np.uint8]:
    """Round what a receiver yields, uint8 or floats from 0 to 255, to uint8."""
    if images.dtype == np.uint8:
        return images
    with np.errstate(invalid="ignore"):  # what is no number becomes any
        pixels: NDArray[np.uint8] = np.clip(np.round(images), 0, 255).astype(np.uint8)
    return pixels
