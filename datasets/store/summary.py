"""What a store holds, as rows of a table for people."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from latentset.datasets.store.arrays import ImageSizes
from latentset.datasets.store.samples import OK, SAMPLES, order_splits
from latentset.datasets.store.store import Store
from latentset.datasets.terminal import plain, printable

_CLASSES_SHOWN = 6

_REPEATED_SHOWN = 3

_SEVERAL: tuple[tuple[str, Literal["split", "label"]], ...] = (
    ("in several splits", "split"),
    ("in several classes", "label"),
)

_BRIEF = {
    "samples",
    "in several splits",
    "in several classes",
    "images",
    "rate",
    "PSNR",
    "MS-SSIM",
    "store",
    "against images",
}


def summarise(store: Store, brief: bool = False) -> list[tuple[str, str]]:
    """Names and values of a store, complete or not; ``brief`` ones are for the end of a job."""
    ok = store.samples.filter(pc.equal(store.samples.column("status"), OK))
    rows = {**_content(store, ok), **_size(store, ok), **_origin(store)}
    return [row for row in rows.items() if not brief or row[0] in _BRIEF]


def store_json(store: Store) -> dict[str, Any]:
    """What a store holds, complete or not, as values of JSON (docs/encoding.md)."""
    found: dict[str, Any] = {
        "store": str(store.location),
        "format": store.format,
        "complete": store.manifest is not None,
        "fingerprint": store.fingerprint or None,
        "header": store.header.model_dump(mode="json"),
    }
    if store.manifest is None:
        return found
    samples = store.samples
    ok = samples.filter(pc.equal(samples.column("status"), OK))
    rate = ok.column("rate_bpp").to_numpy()
    return {
        **found,
        "samples": store.manifest.samples.model_dump(),
        "splits": dict(Counter(samples.column("split").to_pylist())),
        "statuses": dict(Counter(samples.column("status").to_pylist())),
        "stored_bytes": dict(store.stored_bytes()),
        "in_several_splits": images_in_several("split", ok),
        "in_several_classes": images_in_several("label", ok),
        "source_bytes": int(pc.sum(ok.column("source_bytes")).as_py() or 0),
        "mean_rate_bpp": float(rate.mean()) if rate.size else None,
    }


def images_in_several(column: Literal["split", "label"], ok: pa.Table) -> list[list[str]]:
    """Paths of each image that more than one split, or class, has, by the digest of its file."""
    digests = ok.group_by("source_sha256").aggregate([(column, "count_distinct")])
    several = pc.greater(digests[f"{column}_count_distinct"], 1)
    repeated = digests.filter(several)["source_sha256"].combine_chunks()
    paths: dict[str, list[str]] = {}
    rows = ok.filter(pc.is_in(ok["source_sha256"], repeated)).select(["source_sha256", "path"])
    for row in rows.to_pylist():
        paths.setdefault(row["source_sha256"], []).append(row["path"])
    return list(paths.values())


def describe_several(ok: pa.Table) -> dict[str, str]:
    """For splits and for classes, a line about images that are in more than one, if there are."""
    rows = {}
    for title, column in _SEVERAL:
        if repeated := images_in_several(column, ok):
            shown = "; ".join(" = ".join(paths) for paths in repeated[:_REPEATED_SHOWN])
            more = "; …" if len(repeated) > _REPEATED_SHOWN else ""
            rows[title] = f"{len(repeated)} images (equal SHA-256): {shown}{more}"
    return rows


def make_table(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    """A table of two columns, name and value."""
    table = Table(title=plain(title), show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(plain(name), plain(value))
    return table


def failed_lines(store: Store, limit: int) -> list[str]:
    """Name samples without latents, at most ``limit`` of them; no lines if there are none."""
    failed = store.samples.filter(pc.not_equal(store.samples.column("status"), OK))
    if failed.num_rows == 0:
        return []
    lines = [f"{failed.num_rows} images could not be encoded:"]
    for row in failed.slice(0, limit).to_pylist():
        lines.append(printable(f"  {row['path']}: {row['status']}: {row['reason']}"))
    if failed.num_rows > limit:
        lines.append(f"  … and {failed.num_rows - limit} more (samples.parquet has all)")
    return lines


def format_bytes(count: float) -> str:
    """Bytes as, for instance, ``4.70 MB`` (of 1,000,000 bytes)."""
    if count < 1000:
        return f"{count:.0f} bytes"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 1000:
            return f"{count:.2f} {unit}"
    return f"{count / 1000:,.2f} GB"


def _content(store: Store, ok: pa.Table) -> dict[str, str]:
    header = store.header
    rows = {"source": f"{header.source.name} ({header.source.kind})"}
    if store.manifest is None:
        rows["complete"] = f"no: run the same {header.command} again"
        rows["images"] = f"{header.source.samples} listed"
        return rows
    counts, names = store.manifest.samples, header.source.classes
    rows["complete"] = "yes"
    rows["samples"] = f"{counts.total}: {counts.ok} with {header.noun}, {counts.failed} failed"
    splits = Counter(store.samples.column("split").to_pylist())
    rows["splits"] = ", ".join(f"{k or '(none)'} {splits[k]}" for k in order_splits(splits))
    shown = ", ".join(names[:_CLASSES_SHOWN]) + (", …" if len(names) > _CLASSES_SHOWN else "")
    rows["classes"] = f"{len(names)}: {shown}" if names else "none"
    rows |= describe_several(ok)
    rows["images"] = _describe_sizes(ok.column("height"), ok.column("width"))
    grids = "latent grids" if header.pixels is None else "stored images"
    rows[grids] = _describe_sizes(ok.column("latent_height"), ok.column("latent_width"))
    return rows


def _describe_sizes(height: Any, width: Any) -> str:
    sizes = sorted(
        set(zip(height.to_pylist(), width.to_pylist(), strict=True)), key=lambda s: (s[0] * s[1], s)
    )
    if not sizes:
        return "none"
    if len(sizes) == 1:
        return "{}x{} (height x width)".format(*sizes[0])
    return "{} sizes, {}x{} to {}x{} (height x width)".format(len(sizes), *sizes[0], *sizes[-1])


def _size(store: Store, ok: pa.Table) -> dict[str, str]:
    if store.manifest is None:
        return {}
    rows: dict[str, str] = {}
    rate, stored = ok.column("rate_bpp").to_numpy(), store.stored_bytes()
    total = sum(stored.values())
    if rate.size:
        rows["rate"] = f"{rate.mean():.4f} bpp on average ({rate.min():.4f} to {rate.max():.4f})"
    for name, title, unit in (("psnr_db", "PSNR", " dB"), ("ms_ssim", "MS-SSIM", "")):
        measured = ok.column(name).drop_null().to_numpy() if name in ok.column_names else rate[:0]
        finite = measured[np.isfinite(measured)]  # PSNR is infinite where images are equal
        parts = [f"{finite.mean():.4f}{unit} on average of {finite.size}"] if finite.size else []
        if exact := measured.size - finite.size:
            parts.append(f"infinite for {exact}")
        if parts:
            rows[title] = ", ".join(parts)
    rows["store"] = f"{format_bytes(total)} in {len(store.manifest.objects)} objects"
    for name in (*store.header.arrays, SAMPLES):
        rows[f"  {name}"] = f"{format_bytes(stored[name])} ({stored[name] / total:.1%})"
    if rate.size:
        of_image = ImageSizes(store.header.content, store.header.resize)
        sizes = zip(ok.column("height").to_pylist(), ok.column("width").to_pylist(), strict=True)
        pixels = np.array([np.prod(of_image.coded(h, w)) for h, w in sizes], np.float64)
        coded = float((rate * pixels).sum()) / 8
        rows["codec's own bitstreams" if store.header.codec else "files"] = (
            f"{format_bytes(coded)} by rate_bpp"
            + (f"; the store is {total / coded:.2f} times that" if coded else "")
        )
    if source := int(pc.sum(ok.column("source_bytes")).as_py() or 0):
        times = f"the store is {total / source:.3f} times that"
        rows["against images"] = f"{format_bytes(source)}; {times}"
    return rows


def _origin(store: Store) -> dict[str, str]:
    header = store.header
    made, layout = header.provenance, header.layout
    rows: dict[str, str] = {}
    pixels, codec = header.pixels, header.codec
    if pixels is not None:
        rows["pixels"] = "of the images" if pixels.latents is None else "decoded"
        if pixels.latents is not None:
            rows["latents of"] = f"images, resized by {pixels.latents.resize}"
            rows["latents' fingerprint"] = pixels.latents.fingerprint
    if codec is not None:
        table = codec.scale_table
        rows["codec"] = f"{codec.name} ({codec.form}), sha256 {codec.sha256}"
        rows["channels"] = f"{codec.channels} of y_hat, {codec.z_channels} of z_hat"
        rows["scale table"] = f"{len(table)} values, {min(table):.4g} to {max(table):.4g}"
        rows["scale index"] = (
            f"exact integers of z_hat up to {codec.h_s_exact_to}: the same on every CPU"
            if codec.h_s_exact_to
            else "computed with fractions: near a rounding boundary it depends on the device"
        )
    rows["resize"] = header.resize
    rows["layout"] = (
        f"{layout.shards} shards of {layout.shard_rows} rows, chunks of {layout.chunk_rows}"
    )
    rows["made with"] = (
        f"latentset {made.latentset}, TensorFlow {made.tensorflow} "
        f"(oneDNN {'on' if made.onednn else 'off'}), tensorflow-compression "
        f"{made.tensorflow_compression}, zarr {made.zarr}, NumPy {made.numpy}, Python {made.python}"
    )
    rows["on"] = made.device
    rows["decoder"] = made.decoder
    rows["created"] = made.created
    rows["format version"] = header.format_version
    if codec is not None:
        rows["vector instructions"] = made.cpu_isa or "native: the best of each CPU"
    if store.fingerprint:
        rows["fingerprint"] = store.fingerprint
    return rows
