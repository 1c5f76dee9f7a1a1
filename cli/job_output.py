"""What encode and decode print: how a source was understood, and what was done."""

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from latentset.cli.console import make_console

if TYPE_CHECKING:
    from latentset.datasets.sources import Source
    from latentset.pipeline.jobs.tasks import JobResult

_FAILED_SHOWN = 5
_CLASSES_SHOWN = 8


def show_source(source: "Source", where: str = "", *, to_stderr: bool) -> None:
    """Print what a source, at ``where``, was understood to be."""
    import pyarrow.compute as pc

    from latentset.datasets.sources.listing import is_no_label
    from latentset.datasets.store.samples import order_splits
    from latentset.datasets.store.summary import make_table

    samples = source.samples

    def count(column: str) -> dict[Any, int]:
        return {
            row["values"]: row["counts"] for row in pc.value_counts(samples[column]).to_pylist()
        }

    counts = count("label")
    classes = [f"{name} {counts.get(k, 0):,}" for k, name in enumerate(source.classes)]
    if (more := len(classes) - _CLASSES_SHOWN) > 0:
        classes[_CLASSES_SHOWN:] = [f"{more} more"]
    splits = count("split")
    rows = [
        ("layout", f"{source.kind} at {where or source.root}"),
        ("images", f"{samples.num_rows:,}"),
        ("splits", ", ".join(f"{k or '(none)'} {splits[k]:,}" for k in order_splits(splits))),
        ("classes", f"{len(source.classes)}: {', '.join(classes)}" if classes else "none"),
    ]
    if -1 in counts:
        rows.append(("without class", f"{counts[-1]:,} images"))
    trained = samples.filter(pc.equal(samples["split"], "train")) if "train" in splits else samples
    known = set(pc.unique(trained["label"]).to_pylist())
    if set(splits) == {""} and source.classes:
        text = "to train, add --split 80/10/10: a finished store cannot be split later"
        rows.append(("hint", text))
    if missing := [name for k, name in enumerate(source.classes) if k not in known]:
        shown = ", ".join(missing[:_CLASSES_SHOWN])
        part = "in train" if "train" in splits else "at all"
        rows.append(("missing", f"no image {part} of {len(missing)} classes: {shown}"))
    if unlabelled := [name for name in source.classes if is_no_label(name)]:
        shown = ", ".join(map(repr, unlabelled))
        rows.append(("look", f"a class is named {shown}: images whose label is missing?"))
    if padded := [name for name in source.classes if name != name.strip()]:
        shown = ", ".join(map(repr, padded[:_CLASSES_SHOWN]))
        rows.append(("look", f"blanks are part of the names of {len(padded)} classes: {shown}"))
    if source.excluded:
        skipped = (f"{reason} ({n:,})" for reason, n in sorted(source.excluded.items()))
        rows.append(("skipped", ", ".join(skipped)))
    make_console(stderr=to_stderr).print(make_table("images", rows))


def source_json(source: "Source") -> dict[str, Any]:
    """What a source was understood to be, for programs (docs/encoding.md)."""
    labels = Counter(source.samples["label"].to_pylist())
    return {
        "layout": source.kind,
        "root": str(source.root),
        "images": source.samples.num_rows,
        "splits": dict(Counter(source.samples["split"].to_pylist())),
        "classes": {name: labels[k] for k, name in enumerate(source.classes)},
        "without_class": labels[-1],
        "skipped": dict(source.excluded),
    }


def result_json(result: "JobResult") -> dict[str, Any]:
    """What a job has done for a store, for programs (docs/encoding.md)."""
    import pyarrow.compute as pc

    from latentset.datasets.store.samples import OK
    from latentset.datasets.store.summary import store_json

    samples = result.store.samples
    failed = samples.filter(pc.not_equal(samples["status"], OK))
    return {
        **store_json(result.store),
        "was_complete": result.was_complete,
        "encoded": result.encoded,
        "reused": result.reused,
        "seconds": round(result.seconds, 3),
        "retried": asdict(result.retried) if result.retried else None,
        "clipped": list(result.clipped),
        "failed": failed.select(["path", "status", "reason"]).to_pylist(),
    }


def summarise_result(result: "JobResult", done: str) -> None:
    """Print what a job has done to images, for instance ``encoded``."""
    from rich.markup import escape

    from latentset.datasets.store.summary import failed_lines, make_table, summarise
    from latentset.datasets.terminal import printable

    console = make_console()
    location = result.store.location
    retried = result.retried
    if result.was_complete and retried is None:
        manifest = result.store.manifest
        failed = manifest.samples.failed if manifest else 0
        advice = (
            f"{failed} of its {manifest.samples.total} images could not be encoded: --retry-failed "
            "tries them again."
            if manifest and failed
            else "nothing to do."
        )
        text = f"{escape(printable(str(location)))} is complete already; {advice}"
        console.print(text, soft_wrap=True, highlight=False)
        return
    rows = []
    if not result.was_complete:
        rows.append((f"{done} in this run", f"{result.encoded} images in {result.seconds:.1f} s"))
    if result.seconds > 0 and result.encoded:
        rows.append(("speed", f"{result.encoded / result.seconds:.1f} images/s"))
    if result.reused:
        rows.append(("from earlier runs", f"{result.reused} images"))
    if not result.was_complete:
        note = f"{location.name}.job may be deleted"
        if result.store.header.pixels is None:
            note += "; only verify --recompute uses it"
        rows.append(("job", note))
    if count := len(result.clipped):
        shown = ", ".join(result.clipped[:_FAILED_SHOWN])
        rows.append(
            (
                "clipped",
                f"{count} images of more than 8 bits became nearly all white or black, such as "
                f"{shown}: convert them to 8 bits first (docs/sources.md)",
            )
        )
    if retried is not None:
        now = f"{retried.repaired} have latents now, {retried.samples - retried.repaired} failed"
        rows.append(("tried again", f"{retried.samples} images: {now}"))
    console.print(
        make_table(f"{location.name} is complete", [*summarise(result.store, brief=True), *rows])
    )
    for line in failed_lines(result.store, _FAILED_SHOWN):
        console.print(escape(line), highlight=False)
