"""What a codec's sender is made of, found before any image passes through it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.catalogue import CodecFacts
from latentset.pipeline.codec.load.allowed_ops import check_codec_ops, check_ops
from latentset.pipeline.codec.load.code_tables import CodeTable, read_tfc1_table, read_tfc2_table
from latentset.pipeline.codec.load.decoders import DecodedZ, replace_decoded_z
from latentset.pipeline.codec.load.graph import Graph, TensorRef, divide_exactly, extract, flatten
from latentset.pipeline.codec.load.graph_structure import Encoder, Structure, find_structure
from latentset.pipeline.codec.load.integer_network import find_exact_limit, is_integer_network
from latentset.pipeline.codec.load.metagraph import CodecFile
from latentset.pipeline.codec.load.program import LATENT_TENSORS, evaluate_constants
from latentset.pipeline.tensorflow_setup import tf


@dataclass(frozen=True)
class Sender:
    """A sender whose ops were checked and whose latents were found."""

    graph: Graph
    """Flat; decoded symbols of z are replaced by the encoded ones."""
    structure: Structure
    decoded_z: DecodedZ | None
    tensors: Mapping[str, TensorRef]
    """Those of ``LATENT_TENSORS``."""
    latents: Any
    """The ``GraphDef`` of what computes them; stock ops alone."""
    constants: Mapping[TensorRef, NDArray[Any]]
    """Values of the tensors that do not depend on the image."""

    def code_table(self, encoder: Encoder) -> CodeTable:
        """Read the range coder's table of y or z; CodecGraphError if it is damaged."""
        cdf = self.constants[encoder.cdf]
        offset = None if encoder.cdf_offset is None else self.constants[encoder.cdf_offset]
        if encoder.cdf_size is None or offset is None:
            return read_tfc2_table(cdf, offset)
        size = self.constants[encoder.cdf_size]
        return read_tfc1_table(cdf, size, offset, encoder.precision, encoder.overflow_width)

    def scale_tables(self, rows: int) -> list[NDArray[np.float64]]:
        """Return the constants that may be the scale table: a 1.x graph compares sigma with one.

        Constant folding drops the last scale, with which no sigma is compared: it is extrapolated.
        """
        floats = (tf.float32.as_datatype_enum, tf.float64.as_datatype_enum)
        candidates = []
        for node in extract(self.graph.graph_def, [self.structure.scale_index.node]).node:
            if node.op != "Const" or node.attr["value"].tensor.dtype not in floats:
                continue
            value = tf.make_ndarray(node.attr["value"].tensor).astype(np.float64)
            if value.shape not in ((rows,), (rows - 1,)) or rows < 3:
                continue
            if value[0] > 0 and np.isfinite(value).all() and (np.diff(value) > 0).all():
                last = [value[-1] ** 2 / value[-2]] * (rows - len(value))
                candidates.append(np.append(value, last))
        return candidates

    @property
    def z_offset_tensors(self) -> list[TensorRef]:
        """The constants that the offset of z comes from."""
        if self.decoded_z is not None:
            return [] if self.decoded_z.offset is None else [self.decoded_z.offset]
        quantizer = self.structure.z.quantizer
        return quantizer.shifts if quantizer else []

    def z_offset(self, channels: int) -> tuple[float, ...]:
        """Return what is added to the symbols of z before h_s, one value a channel."""
        y_offset = self._rounding_offset("y", self.structure.y)
        offset = self._rounding_offset("z", self.structure.z)
        if np.any(y_offset != 0):
            raise CodecGraphError("y is quantised with an offset: its symbols are not y_hat")
        if self.decoded_z is not None:
            added = self.decoded_z.offset
            offset = np.zeros(1) if added is None else self.constants[added].astype(np.float64)
        if offset.size not in (1, channels):
            raise CodecGraphError(f"expected {channels} offsets of z, got {offset.size}")
        return tuple(float(value) for value in np.broadcast_to(offset.ravel(), (channels,)))

    def _rounding_offset(self, name: str, encoder: Encoder) -> NDArray[np.float64]:
        quantizer = encoder.quantizer
        if quantizer is None:
            found = f"{self.graph.op(encoder.symbols)} {encoder.symbols.node!r}"
            raise CodecGraphError(f"expected the symbols of {name} to be rounded, got {found}")
        # round(v - offset), or floor(v + 1/2 - offset)
        offset = np.asarray(0.5 if quantizer.op == "Floor" else 0.0)
        for ref, sign in ((quantizer.added, -1), (quantizer.subtracted, 1)):
            if ref is not None:
                offset = offset + sign * self.constants[ref].astype(np.float64)
        return offset

    def h_s_exact_to(self) -> int | None:
        """Return up to which z_hat h_s is exact; None where other tensors were named."""
        z, index = self.structure.z.symbols, self.structure.scale_index
        if (self.tensors["z_hat"], self.tensors["scale_index"]) != (z, index):
            return None
        offset = self.decoded_z.offset if self.decoded_z else None
        return find_exact_limit(self.graph, z, index, self.structure.image, offset)

    def facts(self, y_channels: int) -> CodecFacts:
        """Return what can be compared with a public listing."""
        y, z = self.structure.y, self.structure.z
        return CodecFacts(
            y_channels,
            y_table=self.constants[y.cdf].shape,
            z_table=self.constants[z.cdf].shape,
            integer_h_s=is_integer_network(self.graph, z.symbols, self.structure.scale_index),
        )


def read_sender(file: CodecFile, named: Mapping[str, str]) -> Sender:
    """Check the ops of a codec's file and find the latents in its sender, unless they are named."""
    whole = file.metagraph.graph_def
    ports = [*file.sender.nodes(), *(file.receiver.nodes() if file.receiver else [])]
    check_codec_ops(extract(whole, ports), whole)
    nodes = file.sender.nodes()
    graph = Graph(flatten(extract(whole, nodes), nodes))
    structure = find_structure(graph, TensorRef.parse(file.input_tensor))
    graph, decoded_z = replace_decoded_z(graph, structure)
    found = structure.y.symbols, structure.scale_index, structure.z.symbols
    tensors = dict(zip(LATENT_TENSORS, found, strict=True))
    for key, name in named.items():
        if key not in tensors:
            raise CodecGraphError(
                f"unknown tensor {key!r}: expected one of {', '.join(LATENT_TENSORS)}"
            )
        tensors[key] = TensorRef.parse(name)
        graph.node(tensors[key].node)
    used = [*(ref.node for ref in tensors.values()), structure.image.node]
    latents = extract(graph.graph_def, used)
    check_ops(latents)
    refs = [*structure.y.constants, *structure.z.constants]
    if decoded_z and decoded_z.offset:
        refs.append(decoded_z.offset)
    constants = evaluate_constants(graph, refs, structure.image, file.producer_ops)
    return Sender(graph, structure, decoded_z, tensors, divide_exactly(latents), constants)
