"""What a store holds, as rows of a table for people."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc
from rich.markup import escape
from rich.table import Table

from latentset.datasets.store.arrays import ImageSizes
from latentset.datasets.store.header import Header
from latentset.datasets.store.samples import OK
from latentset.datasets.store.store import Store

TextRows = list[tuple[str, str]]
"""Name and value of each row."""

_CLASSES_SHOWN = 6

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What moves the cursor, colours the terminal or turns text around: names may hold it."""


@dataclass(frozen=True)
class Summary:
    """Rows by topic: samples and sizes; bit rate and bytes; codec, resize rule and provenance."""

    content: TextRows = field(default_factory=list)
    size: TextRows = field(default_factory=list)
    origin: TextRows = field(default_factory=list)

    def brief(self) -> TextRows:
        """TextRows for the end of a job."""
        wanted = (
            *("samples", "images", "rate", "PSNR", "MS-SSIM"),
            *("store", "against images"),
        )
        return [row for row in (*self.content, *self.size) if row[0] in wanted]


def summarise(store: Store) -> Summary:
    """Summarise a store, complete or not."""
    return Summary(_content(store), _size(store), _origin(store))


def make_table(title: str, rows: TextRows) -> Table:
    """A table of two columns, name and value."""
    table = Table(title=escape(printable(title)), show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(escape(name), escape(printable(value)))
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


def printable(text: str) -> str:
    """Replace control characters, which would command a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def format_bytes(count: float) -> str:
    """Bytes as, for instance, ``4.70 MB`` (of 1,000,000 bytes)."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:,.2f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def _content(store: Store) -> TextRows:
    header, samples = store.header, store.samples
    rows: TextRows = [("source", f"{header.source.name} ({header.source.kind})")]
    if store.manifest is None:
        rows.append(("complete", f"no: run the same {header.command} again"))
        rows.append(("images", f"{header.source.samples} listed"))
        return rows
    counts = store.manifest.samples
    rows.append(("complete", "yes"))
    rows.append(
        ("samples", f"{counts.total}: {counts.ok} with {header.noun}, {counts.failed} failed")
    )
    splits = Counter(samples.column("split").to_pylist())
    rows.append(("splits", ", ".join(f"{name or '(none)'} {n}" for name, n in splits.items())))
    names = header.source.classes
    shown = ", ".join(names[:_CLASSES_SHOWN]) + (", …" if len(names) > _CLASSES_SHOWN else "")
    rows.append(("classes", f"{len(names)}: {shown}" if names else "none"))
    ok = samples.filter(pc.equal(samples.column("status"), OK))
    for title, height, width in (
        ("images", "height", "width"),
        (
            "latent grids" if header.pixels is None else "stored images",
            "latent_height",
            "latent_width",
        ),
    ):
        rows.append((title, _describe_sizes(ok.column(height), ok.column(width))))
    return rows


def _describe_sizes(height: Any, width: Any) -> str:
    sizes = Counter(zip(height.to_pylist(), width.to_pylist(), strict=True))
    if not sizes:
        return "none"
    if len(sizes) == 1:
        h, w = next(iter(sizes))
        return f"{h}x{w} (height x width)"
    smallest, largest = (f(sizes, key=lambda s: s[0] * s[1]) for f in (min, max))
    return (
        f"{len(sizes)} sizes, {smallest[0]}x{smallest[1]} to {largest[0]}x{largest[1]} "
        "(height x width)"
    )


def _size(store: Store) -> TextRows:
    if store.manifest is None:
        return []
    rows: TextRows = []
    ok = store.samples.filter(pc.equal(store.samples.column("status"), OK))
    rate = ok.column("rate_bpp").to_numpy()
    stored = store.stored_bytes()
    total = sum(stored.values())
    if rate.size:
        rows.append(
            ("rate", f"{rate.mean():.4f} bpp on average ({rate.min():.4f} to {rate.max():.4f})")
        )
    for name, title, unit in (("psnr_db", "PSNR", " dB"), ("ms_ssim", "MS-SSIM", "")):
        measured = ok.column(name).drop_null().to_numpy() if name in ok.column_names else rate[:0]
        finite = measured[np.isfinite(measured)]  # PSNR is infinite where images are equal
        said = [f"{finite.mean():.4f}{unit} on average of {finite.size}"] if finite.size else []
        if exact := measured.size - finite.size:
            said.append(f"infinite for {exact}")
        if said:
            rows.append((title, ", ".join(said)))
    rows.append(("store", f"{format_bytes(total)} in {len(store.manifest.objects)} objects"))
    for name in (*store.header.arrays, "samples.parquet"):
        rows.append((f"  {name}", f"{format_bytes(stored[name])} ({stored[name] / total:.1%})"))
    if rate.size:
        coded = float((rate * _encoded_pixels(store, ok)).sum()) / 8
        rows.append(
            (
                "codec's own strings" if store.header.codec else "files",
                f"{format_bytes(coded)} by rate_bpp; the store is {total / coded:.2f} times that",
            )
        )
    source = int(pc.sum(ok.column("source_bytes")).as_py() or 0)
    if source:
        rows.append(
            (
                "against images",
                f"{format_bytes(source)}; the store is {total / source:.3f} times that",
            )
        )
    return rows


def _encoded_pixels(store: Store, ok: Any) -> Any:
    """Pixels of each image as it was coded."""
    of_image = ImageSizes(store.header.content, store.header.resize)
    sizes = zip(ok.column("height").to_pylist(), ok.column("width").to_pylist(), strict=True)
    return np.array([np.prod(of_image.coded(h, w)) for h, w in sizes], np.float64)


def _origin(store: Store) -> TextRows:
    header = store.header
    made, layout = header.provenance, header.layout
    rows: TextRows = [
        *_describe_content(header),
        ("resize", header.resize),
        (
            "layout",
            f"{layout.shards} shards of {layout.shard_rows} rows, chunks of {layout.chunk_rows}",
        ),
        (
            "made with",
            f"latentset {made.latentset}, TensorFlow {made.tensorflow} "
            f"(oneDNN {'on' if made.onednn else 'off'}), tensorflow-compression "
            f"{made.tensorflow_compression}, zarr {made.zarr}, NumPy {made.numpy}, "
            f"Python {made.python}",
        ),
        ("on", made.device),
        ("decoder", made.decoder),
        ("created", made.created),
        ("format version", header.format_version),
    ]
    if header.codec is not None:
        rows.append(("vector instructions", made.cpu_isa or "native: the best of each CPU"))
    if store.fingerprint:
        rows.append(("fingerprint", store.fingerprint))
    return rows


def _describe_content(header: Header) -> TextRows:
    rows: TextRows = []
    pixels, codec = header.pixels, header.codec
    if pixels is not None:
        rows.append(("pixels", "of the images" if pixels.latents is None else "decoded"))
        if pixels.latents is not None:
            rows.append(("latents of", f"images, resized by {pixels.latents.resize}"))
            rows.append(("latents' fingerprint", pixels.latents.fingerprint))
    if codec is None:
        return rows
    rows.append(("codec", f"{codec.name} ({codec.form}), sha256 {codec.sha256}"))
    table = codec.scale_table
    return [
        *rows,
        ("channels", f"{codec.channels} of y_hat, {codec.z_channels} of z_hat"),
        ("scale table", f"{len(table)} values, {min(table):.4g} to {max(table):.4g}"),
        (
            "scale index",
            f"exact integers of z_hat up to {codec.h_s_exact_to}: the same on every CPU"
            if codec.h_s_exact_to
            else "computed with fractions: near a rounding boundary it depends on the device",
        ),
    ]
