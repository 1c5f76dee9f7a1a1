"""Images from symbols are those that the codec's own receiver makes of strings, bit for bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from latentset.datasets.errors import CodecGraphError
from latentset.pipeline.codec.load.codec import Codec, load_codec
from latentset.pipeline.codec.load.metagraph import parse_codec_file
from latentset.pipeline.codec.load.synthesis import Synthesis
from tests.makers import by_hand, graphs

SHIPPED = tuple(f"demo-hyperprior-msssim-{quality}" for quality in (1, 4, 8))


def make_codec(metagraph: Any) -> Codec:
    return Codec(parse_codec_file(metagraph.SerializeToString(), "tiny"))


def decode(codec: Codec, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    latents = codec.encode(images)
    return codec.decode(latents.y_hat, latents.z_hat, (images.shape[1], images.shape[2]))


def receive(codec: Codec, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([codec.receiver(codec.sender(image)) for image in images])


@pytest.fixture(scope="module", params=SHIPPED)
def shipped(request: pytest.FixtureRequest) -> Codec:
    return load_codec(request.param)


@pytest.mark.parametrize("size", [(16, 16), (64, 80), (75, 118), (33, 161)])
def test_shipped_codecs(shipped: Codec, size: tuple[int, int], images: NDArray[np.uint8]) -> None:
    image = np.tile(images[:1], (1, 2, 2, 1))[:, : size[0], : size[1]]
    decoded = decode(shipped, image)
    assert decoded.shape == (1, *size, 3)
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, receive(shipped, image))


@pytest.mark.parametrize(
    "build",
    [
        lambda weights: graphs.build_v2(weights),
        lambda weights: graphs.build_v2(weights, calls=True),
        lambda weights: graphs.build_v1(weights),
        lambda weights: graphs.build_v1(weights, functional=True),
        lambda weights: graphs.build_v2(weights, receiver="checks strings"),
        lambda weights: graphs.build_v2(weights, receiver="uses z"),
    ],
    ids=["v2", "v2 calls", "v1", "v1 functional", "v2 checks strings", "v2 uses z"],
)
def test_both_generations(build: Any, weights: by_hand.Weights, images: NDArray[np.uint8]) -> None:
    codec = make_codec(build(weights))
    few = images[:3]
    decoded = decode(codec, few)
    # By hand: 128 + 4 y_hat of the first three channels, a square of 16x16 pixels each.
    y_hat = codec.encode(few).y_hat[..., :3]
    plain = np.clip(128 + 4 * y_hat, 0, 255).repeat(16, 1).repeat(16, 2)[:, :75, :118]
    received = receive(codec, few)
    assert received.std() > 10
    assert np.array_equal(decoded, received)
    assert np.array_equal(decoded, plain) != ("uses z" in str(build.__code__.co_consts))


def test_a_batch_gives_what_each_gives(v2_path: Path, images: NDArray[np.uint8]) -> None:
    codec = load_codec(str(v2_path))
    together = decode(codec, images)
    alone = np.concatenate([decode(codec, images[k : k + 1]) for k in range(len(images))])
    assert np.array_equal(together, alone)


def test_the_padding_is_cropped_and_nothing_else(v2_path: Path, images: NDArray[np.uint8]) -> None:
    codec = load_codec(str(v2_path))
    latents = codec.encode(images[:1])
    whole = codec.decode(latents.y_hat, latents.z_hat, (80, 128))
    cropped = codec.decode(latents.y_hat, latents.z_hat, (75, 118))
    assert np.array_equal(cropped, whole[:, :75, :118])
    with pytest.raises(CodecGraphError, match=r"expected images of shape \(1, 81, 128, 3\), got"):
        codec.decode(latents.y_hat, latents.z_hat, (81, 128))


def test_no_range_decoder_is_left(weights: by_hand.Weights, images: NDArray[np.uint8]) -> None:
    codec = make_codec(graphs.build_v1(weights))
    latents = codec.encode(images[:1])
    # z_hat of another image changes nothing where the synthesis does not need it.
    other = codec.encode(images[1:2])
    assert not np.array_equal(latents.z_hat, other.z_hat)
    assert np.array_equal(
        codec.decode(latents.y_hat, latents.z_hat, (75, 118)),
        codec.decode(latents.y_hat, other.z_hat, (75, 118)),
    )


def test_z_hat_is_used_where_it_is_needed(
    weights: by_hand.Weights, images: NDArray[np.uint8]
) -> None:
    codec = make_codec(graphs.build_v2(weights, receiver="uses z"))
    latents = codec.encode(images[:1])
    first = codec.decode(latents.y_hat, latents.z_hat, (75, 118))
    assert not np.array_equal(first, codec.decode(latents.y_hat, latents.z_hat + 20, (75, 118)))


def test_an_image_that_needs_strings_is_refused(
    weights: by_hand.Weights, images: NDArray[np.uint8]
) -> None:
    codec = make_codec(graphs.build_v2(weights, receiver="uses strings"))
    with pytest.raises(CodecGraphError, match="tiny: expected the image to follow from the symb"):
        decode(codec, images[:1])


def test_without_a_receiver_nothing_is_decoded(
    weights: by_hand.Weights, images: NDArray[np.uint8]
) -> None:
    metagraph = graphs.build_v2(weights)
    del metagraph.signature_def["receiver"]
    with pytest.raises(CodecGraphError, match="tiny: it has no signature 'receiver', so it cannot"):
        decode(make_codec(metagraph), images[:1])


def test_a_receiver_with_one_range_decoder_is_refused(
    weights: by_hand.Weights, images: NDArray[np.uint8]
) -> None:
    metagraph = graphs.build_v2(weights)
    receiver = metagraph.signature_def["receiver"]
    for key in ("channel:0", "channel:1"):
        del receiver.inputs[key]
    sender = metagraph.signature_def["sender"]
    receiver.outputs["output_image"].CopyFrom(sender.inputs["input_image"])
    with pytest.raises(CodecGraphError, match="found 0 with an index and 0 without"):
        decode(make_codec(metagraph), images[:1])


def test_the_self_check_compares_with_the_receiver(
    v2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_codec(str(v2_path)).check_decoding()
    run = Synthesis.run

    def off_by_one(self: Synthesis, *latents: Any) -> NDArray[np.uint8]:
        decoded = run(self, *latents)
        decoded[0, -1, -1, 2] ^= 1
        return decoded

    monkeypatch.setattr(Synthesis, "run", off_by_one)
    load_codec(str(v2_path), self_check=False).check_decoding()
    with pytest.raises(CodecGraphError, match=r"tiny-v2: .* is not the one that the"):
        load_codec(str(v2_path)).check_decoding()
