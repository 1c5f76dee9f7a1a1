"""Figure 5: one image through every codec, and what its latents look like.

Of y_hat the three channels with most values that are not zero are shown, as in the paper. sigma_hat
is never zero: of it, the three channels with most values above the table's least.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentset.datasets.errors import StoreError
from latentset.datasets.store import Store
from latentset.paper.report.pictures import new_figure, save_svg, write_caption
from latentset.paper.report.stores import Stores
from latentset.paper.report.tables import Part, write_csv

SHOWN = 3
"""Channels that are shown of each."""


@dataclass(frozen=True)
class Coded:
    """One image as one codec sees it."""

    codec: str
    """Name of the codec."""
    rate_bpp: float | None
    """Bits per pixel."""
    ms_ssim: float | None
    """MS-SSIM of the decoded image, where it was measured."""
    decoded: NDArray[np.uint8] | None
    """(H, W, 3), where a store of it was given."""
    encoded_after: str
    """Resize rule of the store of latents."""
    shown_after: str
    """Resize rule of the store of ``decoded``; ``none`` where there is none."""
    y_hat: NDArray[np.int16]
    """(h, w, SHOWN)."""
    y_channels: tuple[int, ...]
    """Which channels these are."""
    sigma_hat: NDArray[np.float32]
    """(h, w, SHOWN)."""
    sigma_channels: tuple[int, ...]
    """Which channels these are."""


def write_figure5(stores: Stores, sample: str | None, folder: Path) -> Part:
    """Write figure5.csv and figure5.svg.

    Args:
        stores: The stores.
        sample: Id of the image; the first of the first store's split test if None.
        folder: Where to.

    Returns:
        What was written.

    Raises:
        StoreError: No store of latents has the image.
    """
    if not stores.latents:
        return Part(remark="no stores of latents (--latents STORE)")
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
    write_csv(folder / "figure5.csv", [_line(sample, one) for one in coded])
    figure = _draw(sample, original, rate, coded)
    write_caption(figure, caption)
    save_svg(figure, folder / "figure5.svg")
    missing = ["the original"] if original is None else []
    missing += [f"what {one.codec} decodes" for one in coded if one.decoded is None]
    remark = f"without {', '.join(missing)} (--pixels STORE)" if missing else ""
    return Part(("figure5.svg", "figure5.csv"), remark, caption)


def _caption(coded: Sequence[Coded], original_after: str, with_rate: bool) -> str:
    """Say what was resized: pictures before they were stored, images before the codec."""
    said = []
    shown = {original_after, *(one.shown_after for one in coded)} - {"none"}
    if shown:
        text = f"pictures are shown as they are stored, resized by {' or '.join(sorted(shown))}"
        if any(one.ms_ssim is not None for one in coded):
            text += "; MS-SSIM is of the decoded image before that"
        said.append(text)
    encoded = {one.encoded_after for one in coded} - {"none"}
    if encoded:
        text = f"bits per pixel are of images resized by {' or '.join(sorted(encoded))} first"
        said.append(text + (", the original's of its file at full size" if with_rate else ""))
    return "".join(f"{text[0].upper()}{text[1:]}. " for text in said).rstrip()


def _first(store: Store) -> str:
    table = store.samples
    rows = zip(*(table[n].to_pylist() for n in ("id", "split", "status")), strict=True)
    found = [(name, split) for name, split, status in rows if status == "ok"]
    return str(next((name for name, split in found if split == "test"), found[0][0]))


def _row(store: Store, sample: str) -> dict[str, Any] | None:
    """The sample's row of a store's table, with its location in the table as ``index``."""
    ids = store.samples["id"].to_pylist()
    if sample not in ids:
        return None
    index = ids.index(sample)
    row: dict[str, Any] = store.samples.slice(index, 1).to_pylist()[0]
    return row | {"index": index} if row["status"] == "ok" else None


def _code(store: Store, row: dict[str, Any], stores: Stores) -> Coded:
    arrays = store.read_sample(row["index"])
    y_hat, scales, sigma_hat = arrays["y_hat"], arrays["scale_index"], arrays["sigma_hat"]
    y_channels, sigma_channels = busiest(y_hat), busiest(scales)
    decoded, ms_ssim, shown_after = None, None, "none"
    for pixels in stores.pixels:
        made = pixels.header.pixels.latents if pixels.header.pixels else None
        if made and made.fingerprint == store.fingerprint and (found := _row(pixels, row["id"])):
            decoded = pixels.read_sample(found["index"])["pixels"]
            ms_ssim, shown_after = found.get("ms_ssim"), pixels.header.resize
    return Coded(
        codec=store.header.codec.name if store.header.codec else "",
        rate_bpp=row["rate_bpp"],
        ms_ssim=ms_ssim,
        decoded=decoded,
        encoded_after=store.header.resize,
        shown_after=shown_after,
        y_hat=y_hat[:, :, list(y_channels)],
        y_channels=y_channels,
        sigma_hat=sigma_hat[:, :, list(sigma_channels)],
        sigma_channels=sigma_channels,
    )


def busiest(values: NDArray[Any]) -> tuple[int, ...]:
    """Find the channels with most values that are not zero.

    Args:
        values: Integers (h, w, C).

    Returns:
        Their numbers, the busiest first; of equals the one with larger values, then the lower.
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


def _line(sample: str, one: Coded) -> dict[str, Any]:
    return {
        "sample": sample,
        "codec": one.codec,
        "rate_bpp": one.rate_bpp,
        "ms_ssim": one.ms_ssim,
        "y_channels": " ".join(map(str, one.y_channels)),
        "sigma_channels": " ".join(map(str, one.sigma_channels)),
    }


def _draw(
    sample: str,
    original: NDArray[np.uint8] | None,
    rate: float | None,
    coded: Sequence[Coded],
) -> Any:
    rows = len(coded) + (original is not None)
    figure = new_figure(2 * (1 + 2 * SHOWN), 1.9 * rows)
    panels = figure.subplots(rows, 1 + 2 * SHOWN, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    if original is not None:
        panels[0, 0].imshow(original)
        said = "original" + (f"\n{rate:.3f} bpp" if rate is not None else "")
        panels[0, 0].set_title(said, fontsize=7)
    for row, one in zip(panels[rows - len(coded) :], coded, strict=True):
        if one.decoded is not None:
            row[0].imshow(one.decoded)
        said = one.codec + (f"\n{one.rate_bpp:.4f} bpp" if one.rate_bpp is not None else "")
        said += f", MS-SSIM {one.ms_ssim:.4f}" if one.ms_ssim is not None else ""
        row[0].set_title(said, fontsize=7)
        for k, channel in enumerate(one.y_channels):
            row[1 + k].imshow(one.y_hat[:, :, k], cmap="gray", interpolation="nearest")
            row[1 + k].set_title(f"ŷ, channel {channel}", fontsize=7)
        for k, channel in enumerate(one.sigma_channels):
            cell = row[1 + SHOWN + k]
            cell.imshow(one.sigma_hat[:, :, k], cmap="gray", interpolation="nearest")
            cell.set_title(f"σ̂, channel {channel}", fontsize=7)
    figure.suptitle(sample, fontsize=8)
    return figure
