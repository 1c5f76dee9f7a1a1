"""What a codec's graph holds in constants: range coder's tables, scale table, offset of z."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.decoders import DecodedZ
from latentset.pipeline.codec.load.graph import Graph, TensorRef, extract
from latentset.pipeline.codec.load.program import evaluate_constants
from latentset.pipeline.codec.load.structure import (
    Encoder,
    Structure,
    TableRefs,
    find_quantizer,
)
from latentset.pipeline.codec.load.tables import CodeTable, read_tfc1_table, read_tfc2_table
from latentset.pipeline.tensorflow_setup import tf

Constants = Mapping[TensorRef, NDArray[Any]]
"""Values of tensors that do not depend on the image."""


def read_constants(
    graph: Graph, structure: Structure, decoded_z: DecodedZ | None, producer_ops: Any = None
) -> Constants:
    """Compute the tables, the quantisation shifts of y and z, and the offset of decoded z.

    Args:
        graph: The flat sub-graph of the sender, its ops checked.
        structure: What was found in it.
        decoded_z: z as the sender decodes it; None: it does not.
        producer_ops: As for ``Program``.

    Raises:
        CodecGraphError: One of them depends on the image.
    """
    refs = [*_table_refs(structure.y.tables), *_table_refs(structure.z.tables)]
    refs += find_z_offset(graph, structure, decoded_z)
    for encoder in (structure.y, structure.z):
        quantizer = find_quantizer(graph, encoder.symbols, structure.image)
        refs += [shift.ref for shift in quantizer.shifts] if quantizer else []
    return evaluate_constants(graph, list(dict.fromkeys(refs)), structure.image, producer_ops)


def read_code_table(encoder: Encoder, constants: Constants) -> CodeTable:
    """Read the range coder's table of one encode op.

    Raises:
        CodecGraphError: It is damaged.
    """
    tables = encoder.tables
    offset = None if tables.cdf_offset is None else constants[tables.cdf_offset]
    if tables.cdf_size is None or offset is None:
        return read_tfc2_table(constants[tables.cdf], offset)
    return read_tfc1_table(
        constants[tables.cdf],
        constants[tables.cdf_size],
        offset,
        tables.precision,
        tables.overflow_width,
    )


def list_scale_tables(graph: Graph, structure: Structure, rows: int) -> list[NDArray[np.float64]]:
    """Return the constants that may be the scale table: a 1.x graph compares sigma with one.

    Args:
        graph: The flat sub-graph of the sender.
        structure: What was found in it.
        rows: Number of scales.

    Returns:
        Ascending positive constants of that length, or one short of it: the fold over the table
        leaves out the last scale, with which no sigma is compared; it is extrapolated.
    """
    floats = (tf.float32.as_datatype_enum, tf.float64.as_datatype_enum)
    candidates = []
    for node in extract(graph.graph_def, [structure.scale_index.node]).node:
        if node.op != "Const" or node.attr["value"].tensor.dtype not in floats:
            continue
        value = tf.make_ndarray(node.attr["value"].tensor).astype(np.float64)
        if value.shape not in ((rows,), (rows - 1,)) or rows < 3:
            continue
        if value[0] > 0 and (np.diff(value) > 0).all():
            last = [value[-1] ** 2 / value[-2]] * (rows - len(value))
            candidates.append(np.append(value, last))
    return candidates


def find_z_offset(
    graph: Graph, structure: Structure, decoded_z: DecodedZ | None
) -> list[TensorRef]:
    """Return the constants that the offset of z comes from; see ``read_z_offset``."""
    if decoded_z is not None:
        return [] if decoded_z.offset is None else [decoded_z.offset]
    quantizer = find_quantizer(graph, structure.z.symbols, structure.image)
    return [shift.ref for shift in quantizer.shifts] if quantizer else []


def read_z_offset(
    graph: Graph,
    structure: Structure,
    constants: Constants,
    channels: int,
    decoded_z: DecodedZ | None,
) -> tuple[float, ...]:
    """Return what h_s takes beyond the symbols of z, one value a channel.

    Args:
        graph: The flat sub-graph of the sender.
        structure: What was found in it.
        constants: As from ``read_constants``.
        channels: Channels of z.
        decoded_z: z as the sender decodes it; None: the offset is that of the rounding.

    Raises:
        CodecGraphError: y or z is not rounded in a known form, or y has an offset.
    """
    y_offset, z_offset = (
        _offset(graph, encoder, name, structure.image, constants)
        for encoder, name in ((structure.y, "y"), (structure.z, "z"))
    )
    if np.any(y_offset != 0):
        raise CodecGraphError(
            "y is quantised with an offset, so its symbols are not y_hat; a scale hyperprior was "
            "expected"
        )
    if decoded_z is not None:
        added = decoded_z.offset
        z_offset = np.zeros(1) if added is None else constants[added].astype(np.float64)
    if z_offset.size not in (1, channels):
        raise CodecGraphError(
            f"expected one quantisation offset a channel of z ({channels}), found {z_offset.size}"
        )
    return tuple(float(value) for value in np.broadcast_to(z_offset.ravel(), (channels,)))


def _offset(
    graph: Graph, encoder: Encoder, name: str, image: TensorRef, constants: Constants
) -> NDArray[np.float64]:
    quantizer = find_quantizer(graph, encoder.symbols, image)
    if quantizer is None:
        raise CodecGraphError(
            f"expected the symbols of {name} to come from a rounding, they come from "
            f"{graph.op(encoder.symbols)} {encoder.symbols.node!r}"
        )
    # round(v - offset), or floor(v + 1/2 - offset)
    offset = np.asarray(0.5 if quantizer.op == "Floor" else 0.0)
    for shift in quantizer.shifts:
        offset = offset - shift.sign * constants[shift.ref].astype(np.float64)
    return offset


def _table_refs(tables: TableRefs) -> list[TensorRef]:
    return [r for r in (tables.cdf, tables.cdf_offset, tables.cdf_size) if r is not None]
