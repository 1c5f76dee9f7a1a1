"""A ``GraphDef`` as a graph: who feeds whom, and its function calls written out.

TensorFlow has two forms of loops and calls. In a flat graph a loop is made of the ops Enter,
Merge, Switch, NextIteration and Exit, and any tensor can be reached by walking along edges; in a
functional graph a loop or a call is one node and its body lies in the function library. Here
everything is made flat first, so that one walk serves both.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
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
"""Ops that tell a tensor's shape, and nothing of its values."""

_STALE_ATTRIBUTES = ("_class", "_output_shapes", "_XlaMustCompile")
"""Placement and shapes as the exporter knew them: wrong once the batch size is free."""


class TensorRef(NamedTuple):
    """One output of one node."""

    node: str
    output: int

    @classmethod
    def parse(cls, name: str) -> "TensorRef":
        """Read ``node``, ``node:0`` or, for an edge of a graph, ``node:1``."""
        node, _, output = name.partition(":")
        return cls(node, int(output) if output else 0)

    def __str__(self) -> str:
        return f"{self.node}:{self.output}"


class Graph:
    """Nodes of a flat ``GraphDef`` by name, and walks along its edges."""

    def __init__(self, graph_def: Any) -> None:
        self.graph_def = graph_def
        self.nodes: dict[str, Any] = {node.name: node for node in graph_def.node}

    def node(self, name: str) -> Any:
        """Return the ``NodeDef`` of that name.

        Raises:
            CodecGraphError: There is none.
        """
        try:
            return self.nodes[name]
        except KeyError:
            raise CodecGraphError(f"the graph has no node {name!r}") from None

    def op(self, ref: TensorRef) -> str:
        """Return the op type of the node that makes a tensor."""
        return str(self.node(ref.node).op)

    def inputs(self, name: str) -> list[TensorRef]:
        """Return the tensors that a node takes, control inputs left out."""
        return [TensorRef.parse(i) for i in self.node(name).input if not i.startswith("^")]

    def find(self, *ops: str) -> Iterator[Any]:
        """Yield the nodes of those op types, in the order of the file."""
        return (node for node in self.graph_def.node if node.op in ops)

    def depends_on_value(self, ref: TensorRef, source: str) -> bool:
        """Say whether a tensor's values follow from another's, and not from its shape alone.

        Args:
            ref: The tensor.
            source: Name of the node that makes the other, in practice the input image.
        """
        ends = self.find_upstream(ref, lambda node: node.name == source or node.op in SHAPE_OPS)
        return any(node.name == source for node in ends)

    def find_upstream(self, ref: TensorRef, stop: Callable[[Any], bool]) -> list[Any]:
        """Return the nodes that satisfy ``stop``, nearest on the ways that lead to a tensor."""
        found, seen, pending = [], {ref.node}, [ref.node]
        while pending:
            node = self.node(pending.pop())
            if stop(node):
                found.append(node)
                continue
            names = {child.node for child in self.inputs(node.name)} - seen
            seen |= names
            pending += names
        return found

    def find_between(self, source: TensorRef, ref: TensorRef) -> list[Any]:
        """Return the nodes on the ways from one tensor to another, on which values are passed."""
        upstream = {ref.node}
        pending = [ref.node]
        users: dict[str, list[str]] = defaultdict(list)
        while pending:
            name = pending.pop()
            if name == source.node or self.node(name).op in SHAPE_OPS:
                continue
            for child in self.inputs(name):
                users[child.node].append(name)
                if child.node not in upstream:
                    upstream.add(child.node)
                    pending.append(child.node)
        found: dict[str, Any] = {}
        pending = [source.node]
        while pending:
            for name in users[pending.pop()]:
                if name not in found and self.node(name).op not in SHAPE_OPS:
                    found[name] = self.node(name)
                    pending.append(name)
        return list(found.values())

    def find_downstream(self, names: Iterable[str]) -> set[str]:
        """Return nodes and all that need them, by inputs or by control inputs."""
        users: dict[str, list[str]] = defaultdict(list)
        for node in self.graph_def.node:
            for name in node.input:
                users[TensorRef.parse(name.lstrip("^")).node].append(node.name)
        found = set(names)
        pending = list(found)
        while pending:
            new = set(users[pending.pop()]) - found
            found |= new
            pending += new
        return found

    def extract(self, names: Iterable[str]) -> Any:
        """Return the ``GraphDef`` of those nodes and everything that they need.

        Control inputs are followed too: what they name runs as well.
        """
        return extract(self.graph_def, names)


def extract(graph_def: Any, names: Iterable[str]) -> Any:
    """Cut the sub-graph that some nodes need out of a ``GraphDef``.

    Args:
        graph_def: Graph; its function library is kept whole.
        names: Nodes to keep.

    Returns:
        A new ``GraphDef`` without placement and stale shapes.

    Raises:
        CodecGraphError: A node is missing.
    """
    nodes = {node.name: node for node in graph_def.node}
    wanted: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name in wanted:
            continue
        if name not in nodes:
            raise CodecGraphError(f"the graph has no node {name!r}")
        wanted.add(name)
        pending += [i.lstrip("^").partition(":")[0] for i in nodes[name].input]
    result = tf.compat.v1.GraphDef()
    result.node.extend(node for node in graph_def.node if node.name in wanted)
    result.library.CopyFrom(graph_def.library)
    result.versions.CopyFrom(graph_def.versions)
    for node in [*result.node, *(n for f in result.library.function for n in f.node_def)]:
        node.device = ""
        for key in _STALE_ATTRIBUTES:
            if key in node.attr:
                del node.attr[key]
    return result


def without_control_inputs(graph_def: Any) -> Any:
    """Return a copy of a ``GraphDef`` in which nodes wait for the tensors that they take alone."""
    result = tf.compat.v1.GraphDef()
    result.CopyFrom(graph_def)
    for node in result.node:
        values = [name for name in node.input if not name.startswith("^")]
        del node.input[:]
        node.input.extend(values)
    return result


def divide_exactly(graph_def: Any) -> Any:
    """Write ``Rsqrt`` and ``Reciprocal`` as divisions, which round alike on every CPU.

    TensorFlow computes them from the CPU's approximations (rsqrtps, rcpps), whose last bits differ
    between makers. A result may differ from the original's in its last bit. The numerator is no
    constant: TensorFlow's constant folding would turn the division by it back into a Reciprocal.
    """
    result = tf.compat.v1.GraphDef()
    result.CopyFrom(graph_def)
    for node in list(result.node):
        if node.op not in ("Rsqrt", "Reciprocal", "Inv"):
            continue
        dtype = node.attr["T"].type
        value = result.node.add(name=f"{node.name}/latentset_value", op="Const")
        value.attr["dtype"].type = dtype
        value.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(1, dtype))
        one = result.node.add(name=f"{node.name}/latentset_one", op="PlaceholderWithDefault")
        one.attr["dtype"].type = dtype
        one.attr["shape"].shape.CopyFrom(tf.TensorShape([]).as_proto())
        one.input.append(value.name)
        if node.op == "Rsqrt":
            root = result.node.add(name=f"{node.name}/latentset_root", op="Sqrt")
            root.attr["T"].type = dtype
            root.input.append(node.input[0])
            node.input[0] = root.name
        node.op = "RealDiv"
        node.input.insert(0, one.name)
    return result


def flatten(graph_def: Any, names: Iterable[str]) -> Any:
    """Write out the function calls and functional loops of a graph.

    This is TensorFlow's own inliner, which computes nothing; the ops must have been checked
    before, because it looks them up.

    Args:
        graph_def: A checked graph.
        names: Nodes whose outputs are wanted; one that is a call itself loses its name.

    Returns:
        A ``GraphDef`` with no function calls; the same one where there were none.

    Raises:
        CodecGraphError: A call could not be written out.
    """
    if not _calls(graph_def):
        return graph_def
    from tensorflow.core.protobuf import config_pb2
    from tensorflow.python.grappler import tf_optimizer

    register_range_coder_ops()
    metagraph = tf.compat.v1.MetaGraphDef()
    metagraph.graph_def.CopyFrom(graph_def)
    bodies = [node for f in metagraph.graph_def.library.function for node in f.node_def]
    for node in [*metagraph.graph_def.node, *bodies]:
        if node.op in FUNCTION_CALLS and not node.op.endswith("PartitionedCall"):
            node.attr["_lower_using_switch_merge"].b = True
    for function in metagraph.graph_def.library.function:
        _declare_effects(function)
    # Grappler leaves the nodes that it is told to fetch as they are: fetch what waits for them.
    last = metagraph.graph_def.node.add(name="latentset_flatten", op="NoOp")
    last.input.extend(f"^{name}" for name in names)
    metagraph.collection_def["train_op"].node_list.value.append(last.name)
    config = config_pb2.ConfigProto()
    options = config.graph_options.rewrite_options
    options.min_graph_nodes = -1
    options.meta_optimizer_iterations = options.ONE
    options.optimizers.append("function")
    flat = tf_optimizer.OptimizeGraph(config, metagraph)
    left = _calls(flat)
    if left:
        raise CodecGraphError(f"the function calls of {', '.join(left[:3])} cannot be inlined")
    return flat


def register_range_coder_ops() -> None:
    """Let TensorFlow know the ops of tensorflow-compression, before it looks them up."""
    from latentset.pipeline.tensorflow_setup import tfc  # noqa: F401


def _declare_effects(function: Any) -> None:
    """Name every node of a function among its effects; else the inliner refuses stateful ones.

    Range coders count as stateful, and a function that has been frozen has lost its effects.
    """
    function.ClearField("control_ret")
    function.signature.ClearField("control_output")
    for node in function.node_def:
        function.control_ret[node.name] = node.name
        function.signature.control_output.append(node.name)


def _calls(graph_def: Any) -> list[str]:
    functions = {function.signature.name for function in graph_def.library.function}
    return [n.name for n in graph_def.node if n.op in FUNCTION_CALLS or n.op in functions]
