"""Finding latents in graphs, and refusing graphs that have none."""

from pathlib import Path

import numpy as np
import pytest

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.codec import Codec
from latentset.pipeline.codec.load.graph import Graph, TensorRef, extract, flatten
from latentset.pipeline.codec.load.graph_structure import Structure, find_quantizer, find_structure
from latentset.pipeline.codec.load.metagraph import parse_codec_file, read_codec_file
from latentset.pipeline.codec.train.codec_export import gaussian_rows
from latentset.pipeline.tensorflow_setup import tf
from tests.makers import by_hand, graphs


def _find(path: Path) -> tuple[Graph, Structure]:
    file = read_codec_file(path)
    nodes = file.sender.nodes()
    graph = Graph(flatten(extract(file.metagraph.graph_def, nodes), nodes))
    return graph, find_structure(graph, TensorRef.parse(file.input_tensor))


def test_first_generation_through_the_loop(v1_path: Path) -> None:
    graph, structure = _find(v1_path)
    assert structure.form == "tfc1"
    ops = [node.op for node in graph.graph_def.node]
    assert "Enter" in ops
    assert "TensorArrayReadV3" in ops
    assert not any(op.startswith("TensorList") or op.endswith("While") for op in ops)
    # The symbols stand before the loop, on the whole batch: an integer cast of a floor.
    for encoder in (structure.y, structure.z):
        assert graph.op(encoder.symbols) == "Cast"
        assert graph.op(graph.inputs(encoder.symbols.node)[0]) == "Floor"
        assert graph.op(encoder.cdf) == "Const"
    assert graph.op(structure.scale_index) == "Exit"
    assert (structure.y.precision, structure.y.overflow_width) == (16, 4)


def test_second_generation_on_the_batch(v2_path: Path) -> None:
    graph, structure = _find(v2_path)
    assert structure.form == "tfc2"
    assert (structure.y.op, structure.z.op) == ("EntropyEncodeIndex", "EntropyEncodeChannel")
    assert graph.op(structure.y.symbols) == "Cast"
    assert structure.z.index is None


def test_quantizers(v1_path: Path, v2_path: Path) -> None:
    _, structure = _find(v1_path)
    y = structure.y.quantizer
    assert y is not None
    assert (y.op, y.subtracted, y.predicted) == ("Floor", None, False)
    assert y.added is not None
    _, structure = _find(v2_path)
    z = structure.z.quantizer
    assert z is not None
    assert (z.op, z.added) == ("Round", None)
    assert z.subtracted is not None


def test_a_bias_is_not_taken_for_an_offset() -> None:
    with tf.Graph().as_default() as tf_graph:
        image = tf.compat.v1.placeholder(tf.float32, (None, 4), name="image")
        latent = image * 2.0 + tf.constant([0.1, 0.2, 0.3, 0.4])
        tf.cast(tf.round(latent), tf.int32, name="v2")
        tf.cast(tf.floor(latent + 0.5), tf.int32, name="v1")
    graph = Graph(tf_graph.as_graph_def())
    second = find_quantizer(graph, TensorRef("v2", 0), TensorRef("image", 0))
    first = find_quantizer(graph, TensorRef("v1", 0), TensorRef("image", 0))
    assert second is not None
    assert first is not None
    assert second.shifts == []
    (half,) = first.shifts
    assert tf.make_ndarray(graph.node(half.node).attr["value"].tensor) == 0.5


def test_depends_on_value_stops_at_shapes() -> None:
    with tf.Graph().as_default() as tf_graph:
        image = tf.compat.v1.placeholder(tf.float32, (None, 4), name="image")
        tf.identity(tf.shape(image) + 1, name="size")
        tf.identity(image + 1, name="value")
    graph = Graph(tf_graph.as_graph_def())
    assert graph.depends_on_value(TensorRef("value", 0), "image")
    assert not graph.depends_on_value(TensorRef("size", 0), "image")


def test_a_factorized_prior_has_no_sigma_hat(weights: by_hand.Weights) -> None:
    data = graphs.build_v1(weights, factorized=True).SerializeToString()
    with pytest.raises(CodecGraphError, match=r"bls: no sigma_hat: .* \(a factorized prior\)"):
        Codec(parse_codec_file(data, "bls"))


def test_a_mean_is_refused(weights: by_hand.Weights) -> None:
    data = graphs.build_v1(weights, mean_scale=True).SerializeToString()
    with pytest.raises(CodecGraphError, match="mbt: y is coded as the difference to a predicted"):
        Codec(parse_codec_file(data, "mbt"))


def test_a_graph_that_range_encodes_nothing_is_refused() -> None:
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.uint8, (1, None, None, 3), "input_image")
        sent = [tf.constant([b"always the same"])]
        data = graphs.metagraph_of(graph, image, sent, [], image).SerializeToString()
    with pytest.raises(CodecGraphError, match="png: expected range-encode ops"):
        Codec(parse_codec_file(data, "png"))


def test_other_scales_are_refused(
    weights: by_hand.Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rows of Gaussians whose scales are 13 % larger each: row i is that of scale i + 1.
    tables = gaussian_rows(by_hand.SCALES * (256 / 0.11) ** (1 / 63))
    monkeypatch.setattr(graphs, "gaussian_rows", lambda scales: tables)
    data = graphs.build_v1(weights).SerializeToString()
    with pytest.raises(CodecGraphError, match="64 probability rows of y are not those"):
        Codec(parse_codec_file(data, "other"))


@pytest.mark.parametrize("folded", [False, True])
def test_a_scale_table_of_the_graph_is_used(
    weights: by_hand.Weights, monkeypatch: pytest.MonkeyPatch, folded: bool
) -> None:
    scales = np.exp(np.linspace(np.log(0.2), np.log(64.0), 64))
    monkeypatch.setattr(graphs, "SCALES", scales)
    if folded:
        # An exporter that computes what is constant leaves all but the last scale.
        monkeypatch.setattr(graphs, "compared_scales", lambda: tf.constant(scales[:-1], tf.float32))
    data = graphs.build_v1(weights).SerializeToString()
    info = Codec(parse_codec_file(data, "narrow")).info
    np.testing.assert_allclose(info.scale_table, scales, rtol=1e-5)
