"""What several qualities in one pass save, against a run for each, and the memory they take.

    python benchmarks/encode_codecs.py IMAGES [--images 256] [--repeats 3]
        [--codec NAME_OR_FILE …] [--resize RULE]

Timed are the commands as a person types them, from before they start to after they end, on the same
images, at native size if not resized: once with every ``--codec``, and once for each codec.
The stores of both are compared byte for byte; where a codec has fewer channels than another, its
shards differ, and it is compared sample by sample. Memory is that of the largest process, a worker.
"""

import argparse
import tempfile
from pathlib import Path

import measure
import numpy as np

CODECS = tuple(f"demo-hyperprior-msssim-{quality}" for quality in (1, 4, 8))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", metavar="IMAGES", type=Path, help="folder of JPEG files")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--codec", action="append", help="default: the three that ship")
    parser.add_argument("--resize", default="none", help="as of latentset encode")
    options = parser.parse_args()
    codecs: list[str] = options.codec or list(CODECS)
    names = {codec: f"{Path(codec).name.removesuffix('.metagraph')}.zarr" for codec in codecs}
    measure.describe_machine()
    files = sorted(options.source.rglob("*.jpg"))
    paths = files[:: max(1, len(files) // options.images)][: options.images]
    apart: dict[str, list[measure.Ran]] = {codec: [] for codec in codecs}
    together: list[measure.Ran] = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "images"
        (source / "all").mkdir(parents=True)
        for k, path in enumerate(paths):
            (source / "all" / f"{k:06d}{path.suffix}").write_bytes(path.read_bytes())

        def encode(store: Path, chosen: list[str]) -> measure.Ran:
            words = [word for codec in chosen for word in ("--codec", codec)]
            words += ["--resize", options.resize, "--workers", str(len(measure.cores()))]
            return measure.run_latentset("encode", source, store, *words, SOURCE_DATE_EPOCH="0")

        for turn in range(options.repeats):
            root = Path(folder) / str(turn)
            for codec in codecs:
                apart[codec].append(encode(root / "apart" / names[codec], [codec]))
            together.append(encode(root / "together", codecs))
        for name in names.values():
            require_equal(root / "apart" / name, root / "together" / name)
    print(f"{len(paths)} images, {len(codecs)} codecs; the stores of both ways are equal")
    for codec, runs in apart.items():
        show(names[codec].removesuffix(".zarr"), runs)
    show("all in one pass", together)
    sums = [sum(run.seconds for run in turn) for turn in zip(*apart.values(), strict=True)]
    one = measure.Series("a command for each codec", tuple(sums), "s").show()
    all_ = measure.Series("one command with all", tuple(r.seconds for r in together), "s").show()
    measure.ratio("apart / together", one, all_)


def show(name: str, runs: list[measure.Ran]) -> None:
    """Print seconds and memory of a command's runs."""
    measure.Series(name, tuple(run.seconds for run in runs), "s").show()
    measure.Series("  CPU time", tuple(run.cpu_seconds for run in runs), "s").show()
    measure.Series("  memory of a worker", tuple(run.peak_mib for run in runs), "MiB").show()


def require_equal(one: Path, other: Path) -> None:
    """Compare two stores, by their bytes where their rows are divided alike."""
    from latentset.datasets.store import open_store

    a, b = open_store(one), open_store(other)
    if a.header.layout == b.header.layout:
        equal = content_of(one) == content_of(other)
    else:
        columns = ["id", "rate_bpp", "source_sha256", "status"]
        equal = a.samples.select(columns) == b.samples.select(columns) and all(
            np.array_equal(values, b.read_sample(k)[name])
            for k in range(a.samples.num_rows)
            for name, values in a.read_sample(k).items()
        )
    if not equal:
        raise SystemExit(f"{one.name} differs between the two ways")


def content_of(store: Path) -> dict[str, bytes]:
    """Every file of a store."""
    files = (path for path in sorted(store.rglob("*")) if path.is_file())
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in files}


if __name__ == "__main__":
    main()
