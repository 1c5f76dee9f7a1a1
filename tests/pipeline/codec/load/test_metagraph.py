"""Reading codec files, whole and not."""

from pathlib import Path

import pytest

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.metagraph import Port, parse_codec_file, read_codec_file
from latentset.pipeline.tensorflow_setup import tf


def test_a_codec_file(v1_path: Path) -> None:
    file = read_codec_file(v1_path)
    assert file.name == "tiny-v1"
    assert file.size_bytes == v1_path.stat().st_size
    assert file.sender.inputs == (
        Port("input_image", "input_image:0", "uint8", (1, None, None, 3)),
    )
    assert [port.key for port in file.sender.outputs] == [f"channel:{i}" for i in range(5)]
    assert [port.dtype for port in file.sender.outputs] == ["string"] * 2 + ["int32"] * 3
    assert file.receiver is not None
    assert [port.key for port in file.receiver.outputs] == ["output_image"]


@pytest.mark.parametrize(
    "data",
    [b"<html><body>404</body></html>", b"\x00" * 100, b"\xff\xd8\xff\xe0JFIF", bytes(range(256))],
)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(CodecGraphError, match=r"expected a TensorFlow MetaGraphDef, got .* bytes"):
        parse_codec_file(data, "garbage")


def test_a_cut_file_is_refused(v1_path: Path) -> None:
    data = v1_path.read_bytes()
    with pytest.raises(CodecGraphError, match="expected a "):
        parse_codec_file(data[:-7], "cut")


def test_a_file_without_the_signature_is_refused() -> None:
    metagraph = tf.compat.v1.MetaGraphDef()
    with pytest.raises(CodecGraphError, match="signature 'sender', found the signatures: none"):
        parse_codec_file(metagraph.SerializeToString(), "empty")
    metagraph.signature_def["serving_default"].method_name = "predict"
    with pytest.raises(CodecGraphError, match="found the signatures: serving_default"):
        parse_codec_file(metagraph.SerializeToString(), "classifier")


def test_another_input_is_refused(v1_path: Path) -> None:
    metagraph = tf.compat.v1.MetaGraphDef.FromString(v1_path.read_bytes())
    port = metagraph.signature_def["sender"].inputs["input_image"]
    port.dtype = tf.float32.as_datatype_enum
    with pytest.raises(CodecGraphError, match="expected input_image to be uint8, it is float32"):
        parse_codec_file(metagraph.SerializeToString(), "floats")
    port.dtype = tf.uint8.as_datatype_enum
    port.tensor_shape.dim[3].size = 1
    with pytest.raises(CodecGraphError, match=r"shape \(N, H, W, 3\), it has \(1, None, None, 1\)"):
        parse_codec_file(metagraph.SerializeToString(), "grey")
    metagraph.signature_def["sender"].inputs["mask"].CopyFrom(port)
    with pytest.raises(CodecGraphError, match="the one input 'input_image', it has: input_image, "):
        parse_codec_file(metagraph.SerializeToString(), "two")


def test_no_strings_are_refused(v1_path: Path) -> None:
    metagraph = tf.compat.v1.MetaGraphDef.FromString(v1_path.read_bytes())
    for key in ("channel:0", "channel:1"):
        del metagraph.signature_def["sender"].outputs[key]
    with pytest.raises(CodecGraphError, match="'sender' has no output of strings"):
        parse_codec_file(metagraph.SerializeToString(), "mute")
