from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from latentset.datasets.store import Store
from latentset.train.data.batches import Batch
from latentset.train.data.inputs import LatentInput, PixelInput, make_input
from latentset.train.data.split import select_split
from latentset.train.models.build import build_network
from latentset.train.models.cau import CAU
from latentset.train.models.fa import FA
from latentset.train.models.fa_cresnet import FACResNet
from latentset.train.models.networks import FACResNetNetwork
from latentset.train.recipe.recipe import Recipe, resolve
from latentset.train.run.classifier import open_reader

MakeRecipe = Callable[..., Recipe]


def test_networks_are_built_as_recipes_say(mixed_store: Store, make_recipe: MakeRecipe) -> None:
    recipe = resolve(make_recipe(model__n=[2, 1, 3]), mixed_store.header, "here")
    torch.manual_seed(0)
    ours = build_network(recipe.model)
    torch.manual_seed(0)
    fa = partial(FA, cau=partial(CAU, r=2))
    theirs = FACResNet(
        FACResNetNetwork(channels=8, num_classes=3, depths=(1, 1, 1), width=2, n=(2, 1, 3)), fa=fa
    )
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(
        torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)
    )


@pytest.mark.parametrize("channels_last", [False, True])
def test_latents_are_the_stores(
    mixed_store: Store, make_recipe: MakeRecipe, channels_last: bool
) -> None:
    # Grids of 4x4, 7x4 and 2x11, whole, to 28x28: each position becomes a block.
    recipe = resolve(
        make_recipe(data__size=28, device__channels_last=channels_last), mixed_store.header, "here"
    )
    fed = make_input(("y_hat", "sigma_hat"), recipe, mixed_store.header)
    reader = open_reader(mixed_store, select_split(mixed_store, "val"), recipe, training=False)
    for batch in reader.batches(0):
        y_hat, sigma_hat = fed(batch)
        assert y_hat.is_contiguous(
            memory_format=torch.channels_last if channels_last else torch.contiguous_format
        )
        for k, sample in enumerate(batch.samples.tolist()):
            latents = mixed_store.read_sample(sample)
            height, width = latents["y_hat"].shape[:2]
            rows, columns = np.arange(28) * height // 28, np.arange(28) * width // 28
            for ours, name in ((y_hat, "y_hat"), (sigma_hat, "sigma_hat")):
                expected = latents[name][rows][:, columns].transpose(2, 0, 1)
                assert ours.dtype == torch.float32
                np.testing.assert_array_equal(ours[k].numpy(), expected.astype(np.float32))


def test_index_beyond_the_table_is_not_a_sigma(mixed_store: Store) -> None:
    header = mixed_store.header
    assert header.codec
    codec = header.codec.model_copy(update={"scale_table": (0.5, 1.0)})
    fed = LatentInput(8, header.model_copy(update={"codec": codec}))
    assert fed.scale_table[:2].tolist() == [0.5, 1.0]
    assert len(fed.scale_table) == 256
    assert fed.scale_table[2:].isnan().all()


@pytest.mark.parametrize("channels_last", [False, True])
def test_pixels_are_pillows(channels_last: bool) -> None:
    # Two images of different sizes; boxes are of the square that each is resized to first.
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (*size, 3), np.uint8) for size in ((40, 60), (32, 32))]
    boxes = [(3, 5, 20, 16, 0), (0, 8, 32, 24, 1)]  # top, left, height, width, flip
    rows = np.concatenate([image.reshape(-1, 3) for image in images]).T
    firsts = [0, 40 * 60]
    windows = [
        [first, *image.shape[:2], *box]
        for first, image, box in zip(firsts, images, boxes, strict=True)
    ]
    batch = Batch(
        {"pixels": torch.from_numpy(np.ascontiguousarray(rows))},
        torch.tensor(windows),
        torch.zeros(2, dtype=torch.int64),
        torch.zeros(2, dtype=torch.int64),
    )
    (x,) = PixelInput(24, 32, channels_last=channels_last)(batch)
    assert x.shape == (2, 3, 24, 24)
    assert x.is_contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )
    for k, (image, (top, left, height, width, flip)) in enumerate(zip(images, boxes, strict=True)):
        whole = Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR)
        crop = whole.crop((left, top, left + width, top + height))
        small = np.asarray(crop.resize((24, 24), Image.Resampling.BILINEAR), np.float32)
        small = small[:, ::-1] if flip else small
        normal = (small / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        # Pillow and PyTorch round the weights of their filters differently: by one grey level.
        np.testing.assert_allclose(x[k].numpy(), normal.transpose(2, 0, 1), atol=1.01 / 255 / 0.224)
