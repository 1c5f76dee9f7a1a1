from collections.abc import Callable

import numpy as np
import pytest
import torch

from latentset.datasets.store import Store
from latentset.train.build import build_network
from latentset.train.models import FACResNet
from latentset.train.module import LatentClassifier
from latentset.train.reader import LatentReader
from latentset.train.recipe import Recipe, resolve
from latentset.train.split import select_split

MakeRecipe = Callable[..., Recipe]


def test_networks_are_built_as_recipes_say(mixed_store: Store, make_recipe: MakeRecipe) -> None:
    recipe = resolve(make_recipe(model__n=[2, 1, 3]), mixed_store.header, "here")
    torch.manual_seed(0)
    ours = build_network(recipe.model)
    torch.manual_seed(0)
    theirs = FACResNet(8, 3, depths=(1, 1, 1), width=2, n=(2, 1, 3), r=2)
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
    module = LatentClassifier(
        build_network(recipe.model), recipe, mixed_store.header.codec.scale_table
    )
    reader = LatentReader(
        mixed_store, select_split(mixed_store, "val"), recipe.data, seed=0, training=False
    )
    for batch in reader.batches(0):
        example = module.dequantise(batch)
        assert example.y_hat.is_contiguous(
            memory_format=torch.channels_last if channels_last else torch.contiguous_format
        )
        for k, sample in enumerate(batch.samples.tolist()):
            latents = mixed_store.read_sample(sample)
            height, width = latents["y_hat"].shape[:2]
            rows, columns = np.arange(28) * height // 28, np.arange(28) * width // 28
            for ours, name in ((example.y_hat, "y_hat"), (example.sigma_hat, "sigma_hat")):
                expected = latents[name][rows][:, columns].transpose(2, 0, 1)
                assert ours.dtype == torch.float32
                np.testing.assert_array_equal(ours[k].numpy(), expected.astype(np.float32))


def test_index_beyond_the_table_is_not_a_sigma(mixed_store: Store, make_recipe: MakeRecipe) -> None:
    recipe = resolve(make_recipe(), mixed_store.header, "here")
    module = LatentClassifier(build_network(recipe.model), recipe, (0.5, 1.0))
    assert module.scale_table[:2].tolist() == [0.5, 1.0]
    assert len(module.scale_table) == 256
    assert module.scale_table[2:].isnan().all()
