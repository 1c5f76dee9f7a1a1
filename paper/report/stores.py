"""What stores know of the codecs that runs learnt from: bits per pixel, PSNR, MS-SSIM."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from latentset.datasets.errors import StoreError
from latentset.datasets.store import Store, open_store
from latentset.paper.report.captions import papers_bpp, papers_top1
from latentset.paper.report.runs import Group, Groups
from latentset.train.models.networks import LatentNetwork


@dataclass(frozen=True)
class Stores:
    """The stores that the report was given."""

    latents: tuple[Store, ...] = ()
    pixels: tuple[Store, ...] = ()
    """Original or decoded."""

    @classmethod
    def open(cls, latents: Sequence[str], pixels: Sequence[str]) -> "Stores":
        """Open stores by their locations.

        Raises:
            StoreError: One cannot be used, or is of the other kind.
        """
        opened = cls(tuple(map(open_store, latents)), tuple(map(open_store, pixels)))
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
        """The store that runs learnt from, if it was given."""
        wanted = group.first.result["store_fingerprint"]
        found = (s for s in (*self.latents, *self.pixels) if s.fingerprint == wanted)
        return next(found, None)

    def decoded(self, group: Group) -> Store | None:
        """The decoded images that runs learnt from, or of their latents, if they were given."""
        wanted = group.first.result["store_fingerprint"]
        for store in self.pixels:
            made = store.header.pixels.latents if store.header.pixels else None
            if made is not None and wanted in (store.fingerprint, made.fingerprint):
                return store
        return None

    def resize_before_codec(self, group: Group) -> str | None:
        """Resize rule of the images that the codec of runs encoded.

        None where it is not known: of decoded images whose store was not given.
        """
        store = self.of(group)
        if store is None:
            recipe = group.first.recipe
            return (
                group.first.resize if recipe and isinstance(recipe.model, LatentNetwork) else None
            )
        made = store.header.pixels.latents if store.header.pixels else None
        return store.header.resize if made is None else made.resize

    def describe_rates(self, groups: Groups) -> str:
        """Describe what bits per pixel are counted over; empty where no image was resized first."""
        found = [self.resize_before_codec(g) for (_, codec), g in groups.items() if codec]
        rules = {rule for rule in found if rule} - {"none"}
        if not rules:
            return ""
        return (
            "bits per pixel of the image as it was encoded; images were resized by "
            f"{' or '.join(sorted(rules))} first, so these do not compare with the paper's"
            + (
                ", nor with those of the originals, which are of their files at full size."
                if any(not codec for _, codec in groups)
                else "."
            )
        )

    def rate_bpp(self, group: Group) -> tuple[float | None, str]:
        """Mean bits per pixel of what runs learnt from, and of which samples.

        Of the samples that the accuracy is of where the store was given, as in the paper; else of
        all samples of the store.
        """
        store, split = self.of(group), group.first.split
        mean = _mean(store, "rate_bpp", split) if store else None
        if mean is not None:
            return mean, split
        return group.first.result["rate_bpp"], "all samples"

    def rows(self, data_sets: Mapping[str, Groups]) -> Iterator[dict[str, Any]]:
        """One row a group: all columns that tables and figures of accuracies are made of."""
        for data_set, groups in data_sets.items():
            for (setting, codec), group in groups.items():
                rate_bpp, rate_of = self.rate_bpp(group)
                decoded, split = self.decoded(group), group.first.split
                yield {
                    "data_set": data_set,
                    "setting": setting,
                    "codec": codec,
                    "codec_name": group.codec_name,
                    "rate_bpp": rate_bpp,
                    "rate_of": rate_of,
                    "psnr_db": _mean(decoded, "psnr_db", split) if decoded else None,
                    "ms_ssim": _mean(decoded, "ms_ssim", split) if decoded else None,
                    **group.columns(),
                    "top5": group.top5,
                    "paper_rate_bpp": papers_bpp(data_set, codec),
                    "paper_top1": papers_top1(data_set, setting, codec),
                }


def _mean(store: Store, column: str, split: str) -> float | None:
    """Mean of a column of the samples table over a split; None where it has no finite value.

    PSNR is infinite where an image is decoded exactly.
    """
    if column not in store.samples.column_names:
        return None
    rows = store.samples.filter(pc.equal(store.samples["split"], split))
    values = rows[column].drop_null().to_numpy()
    values = values[np.isfinite(values)]
    return float(np.mean(values)) if len(values) else None
