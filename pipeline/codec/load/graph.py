"""A ``GraphDef`` as a graph that can be walked, cut and flattened.

In a flat graph a loop is made of the ops Enter, Merge, Switch, NextIteration and Exit. In a
functional graph it is one node with a body in the function library: these are flattened first.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.tensorflow_setup import tf

FUNCTION_CALLS = {
    "PartitionedCall": ("f",),
    "StatefulPartitionedCall": ("f",),
    "While": ("cond", "body"),
    "StatelessWhile": ("cond", "body"),
    "If": ("then_branch", "else_branch"),
    "StatelessIf": ("then_branch", "else_branch"),
}
"""Ops that run functions of the library, with the attributes that name them."""

SHAPE_OPS = frozenset(["Rank", "Shape", "ShapeN", "Size"])
"""Ops that yield a tensor's shape, and nothing of its values."""

_STALE_ATTRIBUTES = ("_class", "_output_shapes", "_XlaMustCompile")
"""Devices and shapes as the exporter knew them: wrong once the batch size is free."""


class TensorRef(NamedTuple):
    """One output of one node."""

    node: str
    output: int

    @classmethod
    def parse(cls, name: str) -> "TensorRef":
        """Read ``node``, ``node:1`` or, of a control input, ``^node``."""
        node, _, output = name.lstrip("^").partition(":")
        return cls(node, int(output) if output else 0)

    def __str__(self) -> str:
        return f"{self.node}:{self.output}"


class Graph:
    """Nodes of a flat ``GraphDef`` of checked form by name, and walks along its edges."""

    def __init__(self, graph_def: Any) -> None:
        self.graph_def = graph_def
        self.nodes: dict[str, Any] = {node.name: node for node in graph_def.node}

    def node(self, name: str) -> Any:
        """Return the ``NodeDef`` of that name; CodecGraphError if there is none."""
        if name not in self.nodes:
            raise CodecGraphError(f"the graph has no node {name!r}")
        return self.nodes[name]

    def op(self, ref: TensorRef) -> str:
        """Return the op type of the node that makes a tensor."""
        return str(self.node(ref.node).op)

    def inputs(self, name: str) -> list[TensorRef]:
        """Return the tensors that a node takes, without control inputs."""
        return [TensorRef.parse(i) for i in self.node(name).input if not i.startswith("^")]

    def skip(self, ref: TensorRef, ops: Collection[str]) -> TensorRef:
        """Go back over ops that pass their first input on."""
        while self.op(ref) in ops:
            ref = self.inputs(ref.node)[0]
        return ref

    @cached_property
    def consumers(self) -> dict[TensorRef, list[Any]]:
        """The nodes that take a tensor, without control inputs."""
        consumers: dict[TensorRef, list[Any]] = defaultdict(list)
        for node in self.graph_def.node:
            for ref in self.inputs(node.name):
                consumers[ref].append(node)
        return consumers

    def find(self, *ops: str) -> Iterator[Any]:
        """Yield the nodes of those op types, in the order of the file."""
        return (node for node in self.graph_def.node if node.op in ops)

    def depends_on_value(self, ref: TensorRef, source: str) -> bool:
        """Return whether a tensor follows from a node's values, and not from its shape alone."""
        ends = self.find_upstream(ref, lambda node: node.name == source or node.op in SHAPE_OPS)
        return any(node.name == source for node in ends)

    def find_upstream(self, ref: TensorRef, stop: Callable[[Any], bool]) -> list[Any]:
        """Return the nodes that satisfy ``stop``, nearest on the paths that lead to a tensor."""

        def step_back(name: str) -> list[str]:
            return [] if stop(self.node(name)) else self._parents(name)

        return [node for node in map(self.node, _reach([ref.node], step_back)) if stop(node)]

    def find_between(self, source: TensorRef, ref: TensorRef) -> list[Any]:
        """Return the nodes on the paths from one tensor to another, on which values are passed."""

        def step_back(name: str) -> list[str]:
            ends = name == source.node or self.node(name).op in SHAPE_OPS
            return [] if ends else self._parents(name)

        users: dict[str, list[str]] = defaultdict(list)
        for name in _reach([ref.node], step_back):
            for parent in step_back(name):
                users[parent].append(name)
        _, *between = _reach([source.node], users.__getitem__)
        return [self.nodes[name] for name in between]

    def find_downstream(self, names: Iterable[str]) -> set[str]:
        """Return nodes and all that need them, by inputs or by control inputs."""
        users: dict[str, list[str]] = defaultdict(list)
        for node in self.graph_def.node:
            for name in node.input:
                users[TensorRef.parse(name).node].append(node.name)
        return set(_reach(names, users.__getitem__))

    def _parents(self, name: str) -> list[str]:
        return [ref.node for ref in self.inputs(name)]


def all_nodes(graph_def: Any) -> list[Any]:
    """Return the nodes of a ``GraphDef`` and of its functions."""
    bodies = [node for function in graph_def.library.function for node in function.node_def]
    return [*graph_def.node, *bodies]


def extract(graph_def: Any, names: Iterable[str]) -> Any:
    """Copy the sub-graph that some nodes need, control inputs included, out of a ``GraphDef``.

    The function library is kept whole. Devices and stale shapes are dropped.
    """
    nodes = Graph(graph_def)
    wanted = _reach(names, lambda name: [TensorRef.parse(i).node for i in nodes.node(name).input])
    result = tf.compat.v1.GraphDef()
    result.node.extend(node for node in graph_def.node if node.name in wanted)
    result.library.CopyFrom(graph_def.library)
    result.versions.CopyFrom(graph_def.versions)
    for node in all_nodes(result):
        node.device = ""
        for key in _STALE_ATTRIBUTES:
            if key in node.attr:
                del node.attr[key]
    return result


def without_control_inputs(
    graph_def: Any, unwanted: Callable[[str], bool] = lambda node: True
) -> Any:
    """Copy a ``GraphDef`` without its control inputs, or without those of unwanted nodes."""
    result = _copy(graph_def)
    for node in result.node:
        node.input[:] = [i for i in node.input if not (i.startswith("^") and unwanted(i[1:]))]
    return result


def substitute(graph_def: Any, replaced: dict[TensorRef, TensorRef]) -> Any:
    """Copy a ``GraphDef``, with every input that is a key replaced by the value."""
    result = _copy(graph_def)
    for node in result.node:
        for k, name in enumerate(node.input):
            if not name.startswith("^") and (ref := TensorRef.parse(name)) in replaced:
                node.input[k] = str(replaced[ref])
    return result


def divide_exactly(graph_def: Any) -> Any:
    """Write ``Rsqrt`` and ``Reciprocal`` as divisions, which round alike on every CPU.

    TensorFlow computes them from the CPU's approximations (rsqrtps, rcpps), whose last bits differ
    between makers. A result may differ from the original's in its last bit. The numerator is no
    constant: TensorFlow's constant folding would turn the division by it back into a Reciprocal.
    """
    result = _copy(graph_def)
    for node in list(result.node):
        if node.op not in ("Rsqrt", "Reciprocal", "Inv"):
            continue
        dtype = node.attr["T"].type
        value = result.node.add(name=f"{node.name}/latentset_value", op="Const")
        value.attr["dtype"].type = dtype
        value.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(1, dtype))
        name = f"{node.name}/latentset_one"
        one = result.node.add(name=name, op="PlaceholderWithDefault", input=[value.name])
        one.attr["dtype"].type = dtype
        one.attr["shape"].shape.CopyFrom(tf.TensorShape([]).as_proto())
        if node.op == "Rsqrt":
            name = f"{node.name}/latentset_root"
            root = result.node.add(name=name, op="Sqrt", input=[node.input[0]])
            root.attr["T"].type = dtype
            node.input[0] = root.name
        node.op = "RealDiv"
        node.input.insert(0, one.name)
    return result


def flatten(graph_def: Any, names: Iterable[str]) -> Any:
    """Inline the function calls and functional loops that some nodes need.

    TensorFlow's inliner looks the ops up: they must have been checked. A wanted node that is a call
    itself loses its name.
    """
    if not _calls(graph_def):
        return graph_def
    from tensorflow.core.protobuf import config_pb2
    from tensorflow.python.grappler import tf_optimizer

    from latentset.pipeline.tensorflow_setup import tfc  # noqa: F401 - registers its ops

    metagraph = tf.compat.v1.MetaGraphDef()
    metagraph.graph_def.CopyFrom(graph_def)
    functions = metagraph.graph_def.library.function
    for node in all_nodes(metagraph.graph_def):
        if node.op in FUNCTION_CALLS and not node.op.endswith("PartitionedCall"):
            node.attr["_lower_using_switch_merge"].b = True
    for function in functions:
        # The inliner refuses stateful nodes, as range coders are, that are not among the effects,
        # and a function that has been frozen has lost its effects: name every node.
        function.ClearField("control_ret")
        function.signature.ClearField("control_output")
        for node in function.node_def:
            function.control_ret[node.name] = node.name
            function.signature.control_output.append(node.name)
    # Grappler keeps the nodes that it is told to fetch as they are: fetch what waits for them.
    last = metagraph.graph_def.node.add(name="latentset_flatten", op="NoOp")
    last.input.extend(f"^{name}" for name in names)
    metagraph.collection_def["train_op"].node_list.value.append(last.name)
    config = config_pb2.ConfigProto()
    options = config.graph_options.rewrite_options
    options.min_graph_nodes = -1
    options.meta_optimizer_iterations = options.ONE
    options.optimizers.append("function")
    try:
        flat = tf_optimizer.OptimizeGraph(config, metagraph)
    except (tf.errors.OpError, ValueError) as error:
        raise CodecGraphError(f"the function calls cannot be inlined: {error}") from error
    if left := _calls(flat):
        raise CodecGraphError(f"the function calls of {', '.join(left[:3])} cannot be inlined")
    return flat


def _calls(graph_def: Any) -> list[str]:
    functions = {function.signature.name for function in graph_def.library.function}
    return [n.name for n in graph_def.node if n.op in FUNCTION_CALLS or n.op in functions]


def _reach(names: Iterable[str], step: Callable[[str], Iterable[str]]) -> dict[str, None]:
    """Return nodes and all that are reached from them, in the order in which they are found."""
    found = dict.fromkeys(names)
    pending = list(found)
    while pending:
        new = dict.fromkeys(name for name in step(pending.pop()) if name not in found)
        found |= new
        pending += new
    return found


def _copy(graph_def: Any) -> Any:
    result = tf.compat.v1.GraphDef()
    result.CopyFrom(graph_def)
    return result
