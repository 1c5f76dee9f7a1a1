"""What the graph of a codec's sender holds, found before any image goes through it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.catalogue import CodecFacts
from latentset.pipeline.codec.load.allowed_ops import check_codec_ops, check_latent_ops
from latentset.pipeline.codec.load.constants import Constants, read_constants
from latentset.pipeline.codec.load.decoders import DecodedZ, skip_coding
from latentset.pipeline.codec.load.graph import Graph, TensorRef, divide_exactly, extract, flatten
from latentset.pipeline.codec.load.integer_network import is_integer_network
from latentset.pipeline.codec.load.metagraph import CodecFile
from latentset.pipeline.codec.load.signatures import producer_ops_of
from latentset.pipeline.codec.load.structure import Structure, find_structure

LATENT_TENSORS = ("y_hat", "scale_index", "z_hat")
"""The tensors that a caller may name, in the order in which they are computed."""


@dataclass(frozen=True)
class Sender:
    """A sender whose ops were checked and whose latents were found."""

    graph: Graph
    """Flat, with the symbols of z in the place of those that it decodes."""
    structure: Structure
    decoded_z: DecodedZ | None
    """z as it decodes it; None: it does not."""
    tensors: Mapping[str, TensorRef]
    """Those of ``LATENT_TENSORS``."""
    latents: Any
    """The ``GraphDef`` of what computes them; stock ops alone."""
    constants: Constants

    def facts(self, y_channels: int) -> CodecFacts:
        """Gather what can be compared with a public listing."""
        y_table, z_table = (
            self.constants[encoder.tables.cdf].shape
            for encoder in (self.structure.y, self.structure.z)
        )
        integers = is_integer_network(
            self.graph, self.structure.z.symbols, self.structure.scale_index
        )
        return CodecFacts(y_channels, y_table, z_table, integers)


def read_sender(file: CodecFile, named: Mapping[str, str]) -> Sender:
    """Check the ops of a codec's file and find the latents in its sender.

    Args:
        file: The codec's file.
        named: Tensors to take instead of what is found, by their key in ``LATENT_TENSORS``.

    Raises:
        CodecGraphError: It is not a scale hyperprior.
        ForbiddenOpError: It holds an op that is not allowed.
    """
    graph = _check_and_flatten(file)
    structure = find_structure(graph, TensorRef.parse(file.input_tensor))
    graph, decoded_z = skip_coding(graph, structure)
    tensors = _choose_tensors(graph, structure, named)
    latents = graph.extract([*(ref.node for ref in tensors.values()), structure.image.node])
    check_latent_ops(file.name, latents)
    constants = read_constants(graph, structure, decoded_z, producer_ops_of(file))
    return Sender(graph, structure, decoded_z, tensors, divide_exactly(latents), constants)


def _check_and_flatten(file: CodecFile) -> Graph:
    whole = file.metagraph.graph_def
    ports = [*file.sender.nodes(), *(file.receiver.nodes() if file.receiver else [])]
    check_codec_ops(file.name, extract(whole, ports), whole)
    sender = extract(whole, file.sender.nodes())
    return Graph(flatten(sender, file.sender.nodes()))


def _choose_tensors(
    graph: Graph, structure: Structure, named: Mapping[str, str]
) -> dict[str, TensorRef]:
    tensors = {
        "y_hat": structure.y.symbols,
        "scale_index": structure.scale_index,
        "z_hat": structure.z.symbols,
    }
    for key, name in named.items():
        if key not in tensors:
            raise CodecGraphError(
                f"unknown tensor {key!r}: expected one of {', '.join(LATENT_TENSORS)}"
            )
        tensors[key] = TensorRef.parse(name)
        graph.node(tensors[key].node)
    return tensors
