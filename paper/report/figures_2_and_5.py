"""Figures 2 and 5: what latents look like."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import StoreError
from latentset.datasets.store import Store
from latentset.datasets.store.statistics import measure_channels
from latentset.paper.report.output import Part, new_figure, save_picture, write_csv
from latentset.paper.report.stores import Stores

BINS = 20
"""Bars of a histogram of Figure 2, over fractions from 0 to 1."""

SHOWN = 3
"""Channels that Figure 5 shows, as in the paper: of y_hat those with most values that are not zero;
of sigma_hat, which is never zero, those with most values above the scale table's least."""

NO_LATENTS = "no stores of latents (--latents STORE)"


def write_figure2(stores: Stores, folder: Path) -> Part:
    """Write figure2.csv and figure2.svg: in each channel, the fraction of values not zero."""
    if not stores.latents:
        return Part(remark=NO_LATENTS)
    figure = new_figure(4 * len(stores.latents), 3.2)
    panels = figure.subplots(1, len(stores.latents), sharey=True, squeeze=False)[0]
    rows = []
    for axes, store in zip(panels, stores.latents, strict=True):
        source, codec = store.header.source.name, _codec(store)
        values = 1 - measure_channels(store, "y_hat").zeros
        rows += [
            {"source": source, "codec": codec, "channel": k, "nonzero": round(float(value), 6)}
            for k, value in enumerate(values)
        ]
        axes.hist(values, bins=np.linspace(0, 1, BINS + 1), color="#1f77b4", edgecolor="white")
        axes.set_title(f"{codec}\n{source}, {len(values)} channels", fontsize=9)
        axes.set_xlabel("fraction of values that are not zero")
        axes.set_xlim(0, 1)
    panels[0].set_ylabel("channels")
    write_csv(folder / "figure2.csv", rows)
    save_picture(figure, folder / "figure2.svg")
    return Part(("figure2.svg", "figure2.csv"))


def _codec(store: Store) -> str:
    return store.header.codec.name if store.header.codec else ""


@dataclass(frozen=True)
class CodedImage:
    """One image as one codec sees it."""

    codec: str
    rate_bpp: float | None
    ms_ssim: float | None
    """Of the decoded image, where it was measured."""
    decoded: NDArray[np.uint8] | None
    """(H, W, 3), where a store of it was given."""
    latents_resize: str
    decoded_resize: str
    """Resize rules of the stores of latents and of ``decoded``; ``none`` where there is none."""
    y_channels: tuple[int, ...]
    sigma_channels: tuple[int, ...]
    latents: list[tuple[str, NDArray[Any]]]
    """Titles and channels (h, w): SHOWN of y_hat, then SHOWN of sigma_hat."""


def write_figure5(stores: Stores, sample: str | None, folder: Path) -> Part:
    """Write figure5.csv and figure5.svg: one image through every codec.

    The image's id is ``sample``, or the first of the first store's split test where None.

    Raises:
        StoreError: No store of latents has the image.
    """
    if not stores.latents:
        return Part(remark=NO_LATENTS)
    sample = sample or _first(stores.latents[0])
    coded = [_code(store, row, stores) for store in stores.latents if (row := _row(store, sample))]
    if not coded:
        raise StoreError(
            f"--sample {sample}: expected the id of an image that was encoded, such as "
            f"{_first(stores.latents[0])}"
        )
    coded.sort(key=lambda one: one.rate_bpp or 0)
    original, rate, rule = _original(stores, sample)
    caption = _caption(coded, rule, rate is not None)
    rows = [
        {
            "sample": sample,
            "codec": one.codec,
            "rate_bpp": one.rate_bpp,
            "ms_ssim": one.ms_ssim,
            "y_channels": " ".join(map(str, one.y_channels)),
            "sigma_channels": " ".join(map(str, one.sigma_channels)),
        }
        for one in coded
    ]
    write_csv(folder / "figure5.csv", rows)
    figure = _draw(sample, original, rate, coded)
    save_picture(figure, folder / "figure5.svg", caption)
    missing = ["the original"] if original is None else []
    missing += [f"what {one.codec} decodes" for one in coded if one.decoded is None]
    remark = f"without {', '.join(missing)} (--pixels STORE)" if missing else ""
    return Part(("figure5.svg", "figure5.csv"), remark, caption)


def _caption(coded: Sequence[CodedImage], original_resize: str, with_rate: bool) -> str:
    """Describe what was resized: pictures before they were stored, images before the codec."""
    sentences = []
    shown = {original_resize, *(one.decoded_resize for one in coded)} - {"none"}
    if shown:
        text = f"pictures are shown as they are stored, resized by {' or '.join(sorted(shown))}"
        if any(one.ms_ssim is not None for one in coded):
            text += "; MS-SSIM is of the decoded image before that"
        sentences.append(text)
    encoded = {one.latents_resize for one in coded} - {"none"}
    if encoded:
        text = f"bits per pixel are of images resized by {' or '.join(sorted(encoded))} first"
        sentences.append(text + (", the original's of its file at full size" if with_rate else ""))
    return "".join(f"{text[0].upper()}{text[1:]}. " for text in sentences).rstrip()


def _first(store: Store) -> str:
    table = store.samples
    rows = zip(*(table[n].to_pylist() for n in ("id", "split", "status")), strict=True)
    found = [(name, split) for name, split, status in rows if status == "ok"]
    return str(next((name for name, split in found if split == "test"), found[0][0]))


def _row(store: Store, sample: str) -> dict[str, Any] | None:
    """The sample's row of a store's table, with its number as ``index``."""
    ids = store.samples["id"].to_pylist()
    if sample not in ids:
        return None
    index = ids.index(sample)
    row: dict[str, Any] = store.samples.slice(index, 1).to_pylist()[0]
    return row | {"index": index} if row["status"] == "ok" else None


def _code(store: Store, row: dict[str, Any], stores: Stores) -> CodedImage:
    arrays = store.read_sample(row["index"])
    y_hat, scales, sigma_hat = arrays["y_hat"], arrays["scale_index"], arrays["sigma_hat"]
    y_channels, sigma_channels = busiest(y_hat), busiest(scales)
    decoded, ms_ssim, resize = None, None, "none"
    for pixels in stores.pixels:
        made = pixels.header.pixels.latents if pixels.header.pixels else None
        if made and made.fingerprint == store.fingerprint and (found := _row(pixels, row["id"])):
            decoded = pixels.read_sample(found["index"])["pixels"]
            ms_ssim, resize = found.get("ms_ssim"), pixels.header.resize
    return CodedImage(
        codec=_codec(store),
        rate_bpp=row["rate_bpp"],
        ms_ssim=ms_ssim,
        decoded=decoded,
        latents_resize=store.header.resize,
        decoded_resize=resize,
        y_channels=y_channels,
        sigma_channels=sigma_channels,
        latents=[
            *((f"ŷ, channel {k}", y_hat[:, :, k]) for k in y_channels),
            *((f"σ̂, channel {k}", sigma_hat[:, :, k]) for k in sigma_channels),
        ],
    )


def busiest(values: NDArray[Any]) -> tuple[int, ...]:
    """Find the SHOWN channels of integers (h, w, C) with most values that are not zero.

    The busiest first; of equals the one with larger values, then the lower number.
    """
    counts = np.count_nonzero(values, axis=(0, 1))
    sizes = np.abs(values.astype(np.int64)).sum(axis=(0, 1))
    return tuple(int(channel) for channel in np.lexsort((-sizes, -counts))[:SHOWN])


def _original(stores: Stores, sample: str) -> tuple[NDArray[np.uint8] | None, float | None, str]:
    """The image, the rate of its file, and the resize rule of its store."""
    for store in stores.pixels:
        if store.header.pixels and store.header.pixels.kind == "original":
            row = _row(store, sample)
            if row:
                pixels = store.read_sample(row["index"])["pixels"]
                return pixels, row["rate_bpp"], store.header.resize
    return None, None, "none"


def _draw(
    sample: str,
    original: NDArray[np.uint8] | None,
    rate: float | None,
    coded: Sequence[CodedImage],
) -> Any:
    rows = len(coded) + (original is not None)
    figure = new_figure(2 * (1 + 2 * SHOWN), 1.9 * rows)
    panels = figure.subplots(rows, 1 + 2 * SHOWN, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    if original is not None:
        panels[0, 0].imshow(original)
        title = "original" + (f"\n{rate:.3f} bpp" if rate is not None else "")
        panels[0, 0].set_title(title, fontsize=7)
    for row, one in zip(panels[rows - len(coded) :], coded, strict=True):
        if one.decoded is not None:
            row[0].imshow(one.decoded)
        title = one.codec + (f"\n{one.rate_bpp:.4f} bpp" if one.rate_bpp is not None else "")
        title += f", MS-SSIM {one.ms_ssim:.4f}" if one.ms_ssim is not None else ""
        row[0].set_title(title, fontsize=7)
        for cell, (title, values) in zip(row[1:], one.latents, strict=False):
            cell.imshow(values, cmap="gray", interpolation="nearest")
            cell.set_title(title, fontsize=7)
    figure.suptitle(sample, fontsize=8)
    return figure
