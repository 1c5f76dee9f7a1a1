"""A codec file: a TensorFlow ``MetaGraphDef`` with the signatures ``sender`` and ``receiver``.

It is read and checked, and nothing of it is run: parsing a protocol buffer runs no ops.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from latentset.datasets.errors import CodecGraphError, ForbiddenOpError
from latentset.pipeline.codec.load.graph_form import CheckedNodes, check_form
from latentset.pipeline.tensorflow_setup import tf

MAX_FILE_BYTES = 1 << 30
"""The largest published file has 48 MB."""

INPUT_KEY = "input_image"
"""Key of the sender's input, as in the published files (tensorflow/compression, tfci.py)."""

_PORT_TYPES = frozenset(
    tf.dtypes.as_dtype(name).as_datatype_enum
    for name in (
        *("bool", "string", "float16", "float32", "float64"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
)


@dataclass(frozen=True)
class Port:
    """One input or output of a signature, as ``channel:0`` and ``Placeholder:0``."""

    key: str
    tensor: str
    dtype: str
    shape: tuple[int | None, ...] | None
    """None for a free size, and for an unknown rank."""


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of one function of a codec, each sorted by key."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def nodes(self) -> list[str]:
        """Return the names of the nodes that make the outputs and take the inputs."""
        return [port.tensor.partition(":")[0] for port in (*self.outputs, *self.inputs)]


@dataclass(frozen=True)
class CodecFile:
    """A parsed codec file; its name has no suffix, and without receiver it can only encode."""

    name: str
    sha256: str
    size_bytes: int
    metagraph: Any
    """``tf.compat.v1.MetaGraphDef``."""
    sender: Signature
    receiver: Signature | None

    @property
    def input_tensor(self) -> str:
        """Name of the tensor that takes the images, uint8 (N, H, W, 3)."""
        return self.sender.inputs[0].tensor

    @property
    def producer_ops(self) -> Any:
        """The ops that the file declares its graph to be made of, as ``Program`` takes them."""
        listed = self.metagraph.meta_info_def.stripped_op_list
        return listed if listed.op else None


def read_codec_file(path: Path) -> CodecFile:
    """Read and check a file ``NAME.metagraph``; see ``parse_codec_file``."""
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise CodecGraphError(f"{path}: expected at most {MAX_FILE_BYTES:,} bytes, got {size:,}")
    return parse_codec_file(path.read_bytes(), path.name.removesuffix(".metagraph"))


def parse_codec_file(data: bytes, name: str) -> CodecFile:
    """Parse a codec file and check its form; CodecGraphError without a usable ``sender``."""
    metagraph = tf.compat.v1.MetaGraphDef()
    with errors_of(name):
        try:
            metagraph.ParseFromString(data)
        except DecodeError:
            start = data[:40].decode("ascii", "replace")
            raise CodecGraphError(
                f"expected a TensorFlow MetaGraphDef, got {len(data)} bytes, first {start!r}"
            ) from None
        signatures = {
            key: Signature(inputs=_ports(found.inputs), outputs=_ports(found.outputs))
            for key, found in metagraph.signature_def.items()
            if key in ("sender", "receiver")
        }
        if "sender" not in signatures:
            found = ", ".join(sorted(metagraph.signature_def)) or "none"
            raise CodecGraphError(f"expected the signature 'sender', found the signatures: {found}")
        sender, receiver = signatures["sender"], signatures.get("receiver")
        _check_sender(sender)
        if receiver is not None and len(receiver.outputs) != 1:
            found = ", ".join(port.key for port in receiver.outputs) or "none"
            raise CodecGraphError(f"expected 'receiver' to have one output, it has: {found}")
        nodes = check_form(metagraph.graph_def)
        for signature in signatures.values():
            _check_tensors(signature, nodes)
    return CodecFile(name, hashlib.sha256(data).hexdigest(), len(data), metagraph, sender, receiver)


@contextmanager
def errors_of(codec: str) -> Iterator[None]:
    """Put a codec's name before the messages of what its graph raises, once."""
    try:
        yield
    except MemoryError as error:
        raise CodecGraphError(f"{codec}: it needs more memory than there is ({error})") from error
    except (CodecGraphError, ForbiddenOpError) as error:
        if str(error).startswith(f"{codec}: "):
            raise
        raise type(error)(f"{codec}: {error}") from error


def _check_sender(sender: Signature) -> None:
    if [port.key for port in sender.inputs] != [INPUT_KEY]:
        keys = ", ".join(port.key for port in sender.inputs) or "none"
        raise CodecGraphError(
            f"expected 'sender' to have the one input {INPUT_KEY!r}, it has: {keys}"
        )
    (port,) = sender.inputs
    if port.dtype != "uint8":
        raise CodecGraphError(f"expected {INPUT_KEY} to be uint8, it is {port.dtype}")
    if port.shape is not None and (len(port.shape) != 4 or port.shape[3] not in (3, None)):
        raise CodecGraphError(
            f"expected {INPUT_KEY} to have the shape (N, H, W, 3), it has {port.shape}"
        )
    if not any(port.dtype == "string" for port in sender.outputs):
        raise CodecGraphError("the signature 'sender' has no output of strings")


def _check_tensors(signature: Signature, nodes: CheckedNodes) -> None:
    for port in (*signature.inputs, *signature.outputs):
        if (found := nodes.type_name(port.tensor)) not in (None, port.dtype):
            raise CodecGraphError(
                f"expected {port.key!r} ({port.tensor}) to be {port.dtype}, the graph's is {found}"
            )


def _ports(infos: Any) -> tuple[Port, ...]:
    # Sorted by key, as tfci.py does: the order of a map in a protocol buffer means nothing.
    return tuple(
        Port(
            key=key,
            tensor=infos[key].name if ":" in infos[key].name else infos[key].name + ":0",
            dtype=_dtype_name(key, infos[key].dtype),
            shape=_shape(infos[key].tensor_shape),
        )
        for key in sorted(infos)
    )


def _dtype_name(key: str, dtype: int) -> str:
    if dtype not in _PORT_TYPES:
        raise CodecGraphError(f"expected {key!r} to hold numbers or strings, got the type {dtype}")
    return str(tf.dtypes.as_dtype(dtype).name)


def _shape(proto: Any) -> tuple[int | None, ...] | None:
    if proto.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else int(dim.size) for dim in proto.dim)
