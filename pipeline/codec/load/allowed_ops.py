"""The op types that a codec's graph may hold, and the check that refuses all others.

A graph from the internet is a program: TensorFlow has ops that read and write files, open
connections and call back into Python. Allowed are the stateless ops of the published codecs and
others of their kind. All others are refused by name, before anything is imported or run.
"""

from collections.abc import Mapping
from typing import Any

from latentset.datasets.errors import CodecGraphError, ForbiddenOpError
from latentset.pipeline.codec.load.graph import FUNCTION_CALLS, all_nodes

STOCK_OPS = frozenset(
    """
    Abs Acos Acosh Add AddN AddV2 All Any ArgMax ArgMin Asin Asinh Assert Atan Atan2 Atanh AvgPool
    BatchMatMul BatchMatMulV2 BatchToSpaceND BiasAdd BiasAddV1 Bitcast BitwiseAnd BitwiseOr
    BroadcastArgs BroadcastTo Bucketize Cast Ceil CheckNumerics ClipByValue Complex ComplexAbs
    Concat ConcatV2 Conj Const Conv2D Conv2DBackpropInput Cos Cosh Cumprod Cumsum
    DepthToSpace DepthwiseConv2dNative Diag DiagPart Div DivNoNan Einsum Elu EnsureShape
    Enter Equal Erf Erfc Erfinv Exit Exp ExpandDims Expm1 FFT FFT2D Fill Floor FloorDiv FloorMod
    FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 Gather GatherNd GatherV2 Greater GreaterEqual
    IFFT IFFT2D IRFFT IRFFT2D IRFFT3D Identity IdentityN If Imag Inv Invert InvertPermutation
    IsFinite IsInf IsNan LeakyRelu LeftShift Less LessEqual Lgamma LinSpace Log Log1p LogSoftmax
    LogicalAnd LogicalNot LogicalOr LoopCond LowerBound MatMul MatrixBandPart MatrixDiag
    MatrixDiagPart Max MaxPool MaxPoolV2 Maximum Mean Merge Min Minimum MirrorPad
    Mod Mul MulNoNan Ndtri Neg NextIteration NoOp NotEqual OneHot OnesLike Pack Pad PadV2
    ParallelConcat PartitionedCall Placeholder PlaceholderWithDefault Pow PreventGradient Prod
    RFFT RFFT2D RFFT3D Range Rank Real RealDiv Reciprocal RefEnter RefExit RefIdentity RefMerge
    RefNextIteration RefSwitch Relu Relu6 Reshape ResizeBilinear ResizeNearestNeighbor Reverse
    ReverseV2 RightShift Rint Roll Round Rsqrt ScatterNd Select SelectV2 Selu Shape ShapeN Sigmoid
    Sign Sin Sinh Size Slice Snapshot Softmax Softplus Softsign SpaceToBatchND SpaceToDepth Split
    SplitV Sqrt Square SquaredDifference Squeeze StatefulPartitionedCall StatelessIf StatelessWhile
    StopGradient StridedSlice StringLength Sub Sum Switch Tan Tanh TensorArrayCloseV3
    TensorArrayConcatV3 TensorArrayGatherV3 TensorArrayReadV3 TensorArrayScatterV3
    TensorArraySizeV3 TensorArraySplitV3 TensorArrayV3 TensorArrayWriteV3 TensorListConcatV2
    TensorListElementShape TensorListFromTensor TensorListGather TensorListGetItem
    TensorListLength TensorListReserve TensorListResize TensorListScatterV2 TensorListSetItem
    TensorListStack TensorScatterAdd TensorScatterUpdate Tile TopK TopKV2 Transpose TruncateDiv
    TruncateMod Unique UniqueV2 Unpack UpperBound Where While Xdivy Xlogy ZerosLike
    """.split()  # noqa: SIM905 - a list of quoted names is harder to read
)
"""What computes latents: TensorFlow's own ops without effect on the outside."""

RANGE_CODERS: Mapping[str, tuple[int, int]] = {
    "CreateRangeDecoder": (2, 1),
    "CreateRangeEncoder": (2, 1),
    "EntropyDecodeChannel": (2, 2),
    "EntropyDecodeFinalize": (1, 1),
    "EntropyDecodeIndex": (3, 2),
    "EntropyEncodeChannel": (2, 1),
    "EntropyEncodeFinalize": (1, 1),
    "EntropyEncodeIndex": (3, 1),
    "PmfToQuantizedCdf": (1, 1),
    "RangeDecode": (3, 1),
    "RangeEncode": (2, 1),
    "UnboundedIndexRangeDecode": (5, 1),
    "UnboundedIndexRangeEncode": (5, 1),
}
"""tensorflow-compression's ops, besides, for the sender and the receiver, not for the latents.
Numbers of inputs and outputs: TensorFlow does not know the ops before tfc is imported."""

RANGE_CODER_OPS = frozenset(RANGE_CODERS)

VARIABLE_OPS = frozenset(
    """
    Assign AssignVariableOp ReadVariableOp ResourceGather VarHandleOp VarIsInitializedOp Variable
    VariableV2
    """.split()  # noqa: SIM905 - a list of quoted names is harder to read
)
"""Ops that mean weights are not in the file: refused too, with a message that says so."""

SAVER_OPS = VARIABLE_OPS | {"MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"}
"""What ``tf.compat.v1.train.Saver`` leaves in a graph; allowed where no signature reaches it, since
only the sub-graphs of the signatures are ever imported."""


def check_codec_ops(reached: Any, whole: Any) -> None:
    """Check a codec file: what its signatures reach, its functions, and the rest of its graph."""
    check_ops(reached, STOCK_OPS | RANGE_CODER_OPS)
    check_ops(whole, STOCK_OPS | RANGE_CODER_OPS | SAVER_OPS)


def check_ops(graph: Any, allowed: frozenset[str] = STOCK_OPS) -> None:
    """Check a ``GraphDef`` and its functions; without a range coder, stock ops are allowed.

    ForbiddenOpError if an op is not allowed, CodecGraphError if weights are variables.
    """
    from tensorflow.python.framework import op_def_registry

    functions = {function.signature.name for function in graph.library.function}
    forbidden: dict[str, str] = {}
    for node in all_nodes(graph):
        # A node may call a function by having its name as op. A function that is named as an op of
        # TensorFlow's own would hide that op from this check.
        calls_by_name = node.op in functions and op_def_registry.get(node.op) is None
        if node.op not in allowed and not calls_by_name:
            forbidden.setdefault(node.op, node.name)
            continue
        for called in (node.attr[key].func.name for key in FUNCTION_CALLS.get(node.op, ())):
            if called not in functions:
                raise ForbiddenOpError(
                    f"{node.op} {node.name!r} calls {called!r}, which is not in the file"
                )
    variables = sorted(forbidden.keys() & VARIABLE_OPS)
    if variables and len(variables) == len(forbidden):
        raise CodecGraphError(
            f"its weights are variables ({variables[0]} {forbidden[variables[0]]!r}), "
            f"whose values are not in the file. Freeze them into constants before exporting"
        )
    if forbidden:
        found = ", ".join(f"{op} (node {node!r})" for op, node in sorted(forbidden.items()))
        raise ForbiddenOpError(
            f"ops that are not allowed in a codec: {found}. Codecs compute on their "
            f"inputs only; nothing of this file has been run"
        )
