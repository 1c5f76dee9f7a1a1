"""What stores say of the codecs that runs learnt from: bits per pixel, PSNR, MS-SSIM."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from latentset.datasets.errors import StoreError
from latentset.datasets.store import Store, open_store
from latentset.paper.report.groups import Group
from latentset.train.models.networks import LatentNetwork


@dataclass(frozen=True)
class Stores:
    """The stores that the report was given."""

    latents: tuple[Store, ...]
    """Stores of latents."""
    pixels: tuple[Store, ...]
    """Stores of pixels, original or decoded."""

    @classmethod
    def open(cls, latents: Sequence[str], pixels: Sequence[str]) -> "Stores":
        """Open stores.

        Args:
            latents: Where stores of latents lie.
            pixels: Where stores of pixels lie.

        Returns:
            The stores.

        Raises:
            StoreError: One cannot be used, or is of the other kind.
        """
        opened = cls(
            tuple(open_store(one) for one in latents), tuple(open_store(one) for one in pixels)
        )
        for store in opened.latents:
            if store.header.pixels is not None:
                raise StoreError(
                    f"--latents {store.location}: it holds pixels: give it with --pixels"
                )
        for store in opened.pixels:
            if store.header.pixels is None:
                raise StoreError(f"--pixels {store.location}: it holds latents; use --latents")
        return opened

    def of(self, group: Group) -> Store | None:
        """Find the store that runs learnt from.

        Args:
            group: The runs.

        Returns:
            The store, if it was given.
        """
        wanted = group.first.result["store_fingerprint"]
        found = (s for s in (*self.latents, *self.pixels) if s.fingerprint == wanted)
        return next(found, None)

    def decoded(self, group: Group) -> Store | None:
        """Find the decoded images that belong to what runs learnt from.

        Args:
            group: The runs.

        Returns:
            The store that they learnt from, or that was decoded from it, if it was given.
        """
        wanted = group.first.result["store_fingerprint"]
        for store in self.pixels:
            made = store.header.pixels.latents if store.header.pixels else None
            if made is not None and wanted in (store.fingerprint, made.fingerprint):
                return store
        return None

    def encoded_after(self, group: Group) -> str | None:
        """Say what was done to images before the codec that runs learnt from saw them.

        Args:
            group: The runs.

        Returns:
            A resize rule, ``none`` where nothing was; None where nobody says: of decoded
            images, when their store was not given.
        """
        store = self.of(group)
        if store is None:
            start = group.first.start
            of_latents = start is not None and isinstance(start.recipe.model, LatentNetwork)
            return start.store.resize if start and of_latents else None
        made = store.header.pixels.latents if store.header.pixels else None
        return store.header.resize if made is None else made.resize

    def rate_bpp(self, group: Group) -> tuple[float | None, str]:
        """Mean rate of what runs learnt from.

        Args:
            group: The runs.

        Returns:
            Bits per pixel, and of which samples: those that the accuracy is of where the store was
            given, as in the paper; else all samples of the store.
        """
        store, split = self.of(group), split_of(group)
        mean = mean_of(store, "rate_bpp", split) if store else None
        if mean is not None:
            return mean, split
        return group.first.result["rate_bpp"], "all samples"

    def quality(self, group: Group) -> tuple[float | None, float | None]:
        """Mean quality of the decoded images of the split that the accuracy is of.

        Args:
            group: The runs.

        Returns:
            PSNR, dB, and MS-SSIM; None where the store was not given or does not say.
        """
        store, split = self.decoded(group), split_of(group)
        if store is None:
            return None, None
        return mean_of(store, "psnr_db", split), mean_of(store, "ms_ssim", split)


def split_of(group: Group) -> str:
    """Name the split that accuracies are of.

    Args:
        group: The runs.

    Returns:
        Its name in the store.
    """
    run = group.first
    if run.recipe is None:
        return run.split
    data = run.recipe.data
    return {"test": data.test_split, "val": data.val_split, "train": data.train_split}[run.split]


def mean_of(store: Store, column: str, split: str) -> float | None:
    """Mean of a column of the samples table.

    Args:
        store: The store.
        column: Name of the column.
        split: Name of the split.

    Returns:
        Over the split's samples that have a finite value (PSNR is infinite where an image is
        decoded exactly); None where there is none.
    """
    if column not in store.samples.column_names:
        return None
    rows = store.samples.filter(pc.equal(store.samples["split"], split))
    values = rows[column].drop_null().to_numpy()
    values = values[np.isfinite(values)]
    return float(np.mean(values)) if len(values) else None
