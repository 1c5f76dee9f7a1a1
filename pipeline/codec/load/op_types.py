"""The tensors that a node takes and yields, by what TensorFlow declares of its op."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.allowed_ops import RANGE_CODERS, SAVER_OPS, STOCK_OPS
from latentset.pipeline.codec.load.graph import FUNCTION_CALLS
from latentset.pipeline.tensorflow_setup import tf

from tensorflow.python.framework import op_def_registry  # isort: skip - tensorflow_setup is first

MAX_TENSORS = 1_000
"""That a node takes or yields."""

REF_TYPES = 100
"""What TensorFlow adds to a type for a reference to a variable of it."""
ANY = 0
"""Type of a tensor that is not known here."""

_SHAPES = frozenset(["dims", "element_shape", "input_sizes", "multiples", "perm", "shape"])
"""Names of arguments that have a value for each dimension."""


class Output(NamedTuple):
    """An output of an op or a function: one tensor, or a list of them."""

    name: str
    types: tuple[int, ...]


def called_functions(node: Any, functions: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The attribute, "" for a call by the op's name, and the function of each call of a node."""
    if calls_by_name(node, functions):
        return [("", functions[node.op])]
    names = [(key, node.attr[key].func.name) for key in FUNCTION_CALLS.get(node.op, ())]
    return [(key, functions[name]) for key, name in names if name in functions]


def calls_by_name(node: Any, functions: Mapping[str, Any]) -> bool:
    """Whether the op of a node is the name of a function."""
    hidden = node.op in RANGE_CODERS or op_def_registry.get(node.op) is not None
    return node.op in functions and not hidden


def label(node: Any) -> str:
    """Name a node in a message."""
    return f"{node.op} {node.name!r}"


def type_name_of(dtype: int) -> str:
    """Name a type that is known."""
    return str(tf.dtypes.as_dtype(dtype).name)


def _definition(op: str) -> Any:
    """What TensorFlow declares of an op; None if a codec may not have it."""
    return op_def_registry.get(op) if op in STOCK_OPS | SAVER_OPS else None


def input_types(node: Any, functions: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The types of a node's inputs; None if its op is not known."""
    if node.op in RANGE_CODERS:
        return (ANY,) * RANGE_CODERS[node.op][0]
    if (definition := _definition(node.op)) is not None:
        _check_allowed_types(node, definition)
        return tuple(t for arg in definition.input_arg for t in types_of(arg, node, definition))
    if calls_by_name(node, functions):
        signature = functions[node.op].signature
        return tuple(t for arg in signature.input_arg for t in types_of(arg, None, None))
    return None


def shape_inputs(node: Any) -> list[int]:
    """Which inputs of a node are shapes."""
    definition = _definition(node.op)
    args = [] if definition is None else definition.input_arg
    if any(arg.number_attr or arg.type_list_attr for arg in args):
        return []
    return [k for k, arg in enumerate(args) if arg.name in _SHAPES]


def output_types(node: Any, functions: Mapping[str, Any]) -> list[Output] | None:
    """The outputs of a node; None if its op is not known, and will be refused."""
    if node.op in RANGE_CODERS:
        return [Output("", (ANY,) * RANGE_CODERS[node.op][1])]
    definition = _definition(node.op)
    if calls_by_name(node, functions):
        signature = functions[node.op].signature
        return [Output(arg.name, types_of(arg, None, None)) for arg in signature.output_arg]
    if definition is None:
        return None
    return [Output(arg.name, types_of(arg, node, definition)) for arg in definition.output_arg]


def types_of(arg: Any, node: Any, definition: Any) -> tuple[int, ...]:
    """The types of the tensors of one argument: of an op, or, without node, of a function."""
    if node is None:
        if arg.type_attr or arg.number_attr or arg.type_list_attr:
            raise CodecGraphError(f"argument {arg.name!r} has no type")
        return (known_type(arg.type, arg.name),)
    where = f"{label(node)}, {arg.name}"
    if arg.type_list_attr:
        found = list(_attribute(node, definition, arg.type_list_attr).list.type)
    else:
        count = _attribute(node, definition, arg.number_attr).i if arg.number_attr else 1
        if not 0 <= count <= MAX_TENSORS:
            raise CodecGraphError(f"{where}: expected 0 to {MAX_TENSORS:,} tensors, got {count:,}")
        dtype = arg.type or _attribute(node, definition, arg.type_attr).type
        found = [dtype] * count
    if len(found) > MAX_TENSORS:
        raise CodecGraphError(f"{where}: expected {MAX_TENSORS:,} tensors at most")
    return tuple(known_type(dtype, where) for dtype in found)


def known_type(dtype: int, where: str) -> int:
    """Return a type; CodecGraphError if TensorFlow has none of that number."""
    try:
        tf.dtypes.as_dtype(dtype)
    except TypeError:
        raise CodecGraphError(f"{where}: {dtype} is no type of TensorFlow's") from None
    return dtype


def _attribute(node: Any, definition: Any, name: str) -> Any:
    if name in node.attr:
        return node.attr[name]
    for attribute in definition.attr:
        if attribute.name == name and attribute.HasField("default_value"):
            return attribute.default_value
    raise CodecGraphError(f"{label(node)}: it has no attribute {name!r}")


def _check_allowed_types(node: Any, definition: Any) -> None:
    for attribute in definition.attr:
        allowed = attribute.allowed_values.list.type
        if attribute.type == "type" and allowed:
            found = _attribute(node, definition, attribute.name).type
            if found not in allowed:
                raise CodecGraphError(f"{label(node)}: it takes no {attribute.name} {found}")
