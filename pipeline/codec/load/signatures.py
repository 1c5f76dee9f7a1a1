"""The two functions of a codec's file, run as published: images to strings and back."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.graph import extract
from latentset.pipeline.codec.load.metagraph import CodecFile, Signature
from latentset.pipeline.codec.load.program import Program


class Signatures:
    """Sender and receiver of a codec whose ops were checked; each is imported when first used.

    Args:
        file: The codec's file.
        threads: Threads within one op.
    """

    def __init__(self, file: CodecFile, threads: int) -> None:
        self._file, self._threads = file, threads
        self._sender: Program | None = None
        self._receiver: Program | None = None

    def sender(self, image: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """Encode one image into strings.

        Args:
            image: uint8 (H, W, 3), RGB.

        Returns:
            The outputs of the signature in the order of their keys: arrays of bytes and of sizes.
        """
        if self._sender is None:
            self._sender = self._program(self._file.sender)
        return self._sender.run(image[np.newaxis])

    def receiver(self, channels: list[NDArray[Any]]) -> NDArray[np.uint8]:
        """Decode what ``sender`` returned.

        Args:
            channels: The outputs of ``sender``, in their order.

        Returns:
            The decoded image, uint8 (H, W, 3), RGB.

        Raises:
            CodecGraphError: The codec has no receiver, or what it yields is no image.
        """
        if self._file.receiver is None:
            raise CodecGraphError(f"{self._file.name}: it has no signature 'receiver'")
        if self._receiver is None:
            self._receiver = self._program(self._file.receiver)
        image = self._receiver.run(*channels)[0]
        if image.ndim != 4 or image.shape[0] != 1 or image.shape[3] != 3:
            raise CodecGraphError(
                f"{self._file.name}: expected the receiver to yield (1, H, W, 3), got {image.shape}"
            )
        return as_pixels(image[0])

    def _program(self, signature: Signature) -> Program:
        return Program(
            extract(self._file.metagraph.graph_def, signature.nodes()),
            [port.tensor for port in signature.inputs],
            [port.tensor for port in signature.outputs],
            threads=self._threads,
            producer_ops=producer_ops_of(self._file),
        )


def as_pixels(images: NDArray[Any]) -> NDArray[np.uint8]:
    """Turn what a receiver yields into pixels.

    Args:
        images: uint8, or floats from 0 to 255; any shape.

    Returns:
        uint8, the same shape.
    """
    if images.dtype == np.uint8:
        return images
    pixels: NDArray[np.uint8] = np.clip(np.round(images), 0, 255).astype(np.uint8)
    return pixels


def producer_ops_of(file: CodecFile) -> Any:
    """The ops that a file says its graph is made of, as ``Program`` takes them.

    Args:
        file: The codec's file.

    Returns:
        Its ``stripped_op_list``, None where it is empty.
    """
    listed = file.metagraph.meta_info_def.stripped_op_list
    return listed if listed.op else None
