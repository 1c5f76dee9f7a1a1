"""What several qualities in one pass save, against a run for each.

    python benchmarks/encode_codecs.py PHOTOGRAPHS [--images 256] [--repeats 3] [--codec NAME …]

Timed are the commands as a person types them, from before they start to after they end, on the same
photographs as they are (native size): once with every ``--codec``, and once for each codec. The
stores of both are compared byte for byte.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measure

CODECS = tuple(f"demo-hyperprior-msssim-{quality}" for quality in (1, 4, 8))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photographs", type=Path, help="folder of JPEG files")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--codec", action="append", help="default: the three that ship")
    options = parser.parse_args()
    codecs: list[str] = options.codec or list(CODECS)
    measure.describe_machine()
    paths = sorted(options.photographs.rglob("*.jpg"))[:: max(1, _step(options))][: options.images]
    apart, together = [], []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "photographs"
        for k, path in enumerate(paths):
            link = source / "all" / f"{k:06d}{path.suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.write_bytes(path.read_bytes())
        for turn in range(options.repeats):
            root = Path(folder) / str(turn)
            apart.append(sum(encode(source, root / "apart" / f"{c}.zarr", [c]) for c in codecs))
            together.append(encode(source, root / "together", codecs))
        for codec in codecs:
            name = f"{codec}.zarr"
            if content_of(root / "apart" / name) != content_of(root / "together" / name):
                raise SystemExit(f"{name} differs between the two ways")
    print(f"{len(paths)} photographs, {len(codecs)} codecs; the stores of both ways are equal")
    one = measure.Series("a command for each codec", tuple(apart), "s").show()
    all_ = measure.Series("one command with all", tuple(together), "s").show()
    measure.ratio("apart / together", one, all_)


def _step(options: argparse.Namespace) -> int:
    return sum(1 for _ in options.photographs.rglob("*.jpg")) // int(options.images)


def encode(source: Path, store: Path, codecs: list[str]) -> float:
    """Run the command and return its seconds."""
    latentset = Path(sys.executable).parent / "latentset"
    chosen = [word for codec in codecs for word in ("--codec", codec)]
    start = time.perf_counter()
    subprocess.run(
        [latentset, "encode", source, store, *chosen, "--workers", str(len(measure.cores()))],
        env={**measure.one_thread(), "SOURCE_DATE_EPOCH": "0"},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


def content_of(store: Path) -> dict[str, bytes]:
    """Every file of a store."""
    files = (path for path in sorted(store.rglob("*")) if path.is_file())
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in files}


if __name__ == "__main__":
    main()
