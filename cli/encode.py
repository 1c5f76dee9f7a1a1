"""The command `latentset encode`, and what `latentset decode` has in common with it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from latentset.datasets.store.formats import Format
from latentset.pipeline.cpu_isa import VARIABLE, CpuIsa, fix_cpu_isa

if TYPE_CHECKING:
    from latentset.pipeline.jobs.progress import ProgressView
    from latentset.pipeline.jobs.tasks import JobResult

_FAILED_SHOWN = 5

SchedulerOption = Annotated[str | None, typer.Option(help="Address of a running Dask scheduler.")]
ClusterOption = Annotated[
    Literal["slurm", "pbs", "sge", "lsf"] | None,
    typer.Option(help="Have a queueing system start workers, --workers of them at most."),
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Local processes.", show_default="one a core")
]
WaitOption = Annotated[
    float,
    typer.Option(
        min=0, help="Minutes without any worker (--scheduler, --cluster) after which to stop."
    ),
]
BatchOption = Annotated[int, typer.Option(min=1, help="Images a batch, at most.")]
CpuIsaOption = Annotated[
    CpuIsa,
    typer.Option(
        envvar=VARIABLE,
        help="Vector instructions of every worker's CPU: the same give the same symbols. native: "
        "the best of each; faster, and symbols may depend on the worker.",
    ),
]


def encode(
    source: Annotated[Path, typer.Argument(help="Folder of images, or a CSV/Parquet list.")],
    store: Annotated[
        str,
        typer.Argument(
            help="Folder, HDF5 file, s3://… or gs://… to make. The same command resumes it. "
            "With several codecs, a folder in which each gets a store of its name."
        ),
    ],
    codec: Annotated[
        list[str],
        typer.Option(
            help="Name or file of a codec; see: latentset codec list. Given several times, each "
            "image is read once for all. none: the images themselves, as pixels."
        ),
    ],
    resize: Annotated[
        str, typer.Option(help="none, short:N (shorter side), exact:HxW or exact:N.")
    ] = "none",
    format: Annotated[
        Format | None,
        typer.Option(help="Zarr objects or one HDF5 file.", show_default="by the name of STORE"),
    ] = None,
    source_kind: Annotated[
        Literal["auto", "imagefolder", "minc2500", "imagenet", "list"],
        typer.Option(help="Layout of SOURCE."),
    ] = "auto",
    minc_split: Annotated[
        int | None, typer.Option(help="minc2500: which split, 1 to 5.", show_default="1")
    ] = None,
    devkit: Annotated[
        Path | None, typer.Option(help="imagenet, flat val folder: devkit or ground-truth .txt.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="list: folder that its paths are relative to.")
    ] = None,
    scheduler: SchedulerOption = None,
    cluster: ClusterOption = None,
    workers: WorkersOption = None,
    wait: WaitOption = 60,
    cpu_isa: CpuIsaOption = CpuIsa.avx2,
    batch: BatchOption = 32,
    on_error: Annotated[
        Literal["record", "fail"],
        typer.Option(help="An image that cannot be encoded: record it, or stop."),
    ] = "record",
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="When the store is complete, try again what could not be encoded.",
        ),
    ] = False,
    sigma_hat: Annotated[
        bool, typer.Option("--sigma-hat", help="Store sigma_hat as float16 as well.")
    ] = False,
    shard_mib: Annotated[
        int, typer.Option(min=1, max=1024, help="MiB of y_hat a shard, before compression.")
    ] = 32,
) -> None:
    """Encode images into a store, or resume where an earlier run of the command stopped."""
    from latentset.datasets.sources import open_source
    from latentset.datasets.sources.resize import ResizeRule
    from latentset.datasets.storage.location import Folder, open_location
    from latentset.pipeline.encode.encode import EncodeOptions, encode_all
    from latentset.pipeline.jobs.progress import choose_view

    refuse_mixed_workers(scheduler, workers, cluster)
    if codec != ["none"]:
        fix_cpu_isa(cpu_isa)
    location = open_location(store)
    inside = isinstance(location, Folder) and location.path.resolve().is_relative_to(
        source.resolve()
    )
    if source.is_dir() and inside:
        raise typer.BadParameter(
            f"STORE {store} is inside SOURCE {source}, and would be listed with the images; "
            "name a folder elsewhere"
        )
    options = EncodeOptions(
        resize=ResizeRule.parse(resize),
        format=format,
        shard_bytes=shard_mib << 20,
        batch=batch,
        scheduler=scheduler,
        workers=workers,
        queue=cluster,
        wait_s=60 * wait,
        view=choose_view(),
        on_error=on_error,
        retry_failed=retry_failed,
        sigma_hat=sigma_hat,
    )
    with interrupted(options.view):
        listed = open_source(source, source_kind, minc_split=minc_split, devkit=devkit, root=root)
        results = encode_all(listed, _name_stores(store, codec, format), options)
    for result in results:
        summarise_result(result, "encoded")


def refuse_mixed_workers(scheduler: str | None, workers: int | None, cluster: str | None) -> None:
    """Refuse options about workers that do not go together."""
    if scheduler is not None and (workers is not None or cluster is not None):
        raise typer.BadParameter(
            "--scheduler is for workers that are there; --workers and --cluster start some"
        )
    if cluster is not None and workers is None:
        raise typer.BadParameter("--cluster needs --workers: how many to ask for at most")


@contextmanager
def interrupted(view: "ProgressView") -> Iterator[None]:
    """End an interrupted job in order, with status 130."""
    # Queueing systems and Kubernetes end a job with SIGTERM: it stops as by Ctrl-C, in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        view.say("Stopped. Finished shards are kept: run the same command again to resume.")
        raise typer.Exit(130) from None


def _name_stores(
    store: str, codecs: list[str], format: Format | None
) -> list[tuple[str | Path, str]]:
    """One codec makes STORE itself; several make STORE/CODEC.zarr or STORE/CODEC.h5."""
    from latentset.datasets.store.formats import is_hdf5_name

    if len(codecs) == 1:
        return [(store, codecs[0])]
    if is_hdf5_name(store):
        raise typer.BadParameter(
            f"STORE {store}: expected a folder, in which each of the {len(codecs)} codecs gets a "
            "store; for HDF5 files use --format hdf5"
        )
    names = [Path(codec).name.removesuffix(".metagraph") for codec in codecs]
    if len(set(names)) < len(names):
        raise typer.BadParameter(f"--codec: expected different names, got {', '.join(names)}")
    suffix = "h5" if format == "hdf5" else "zarr"
    return [
        (f"{store.rstrip('/')}/{name}.{suffix}", codec)
        for name, codec in zip(names, codecs, strict=True)
    ]


def summarise_result(result: "JobResult", done: str) -> None:
    """Print what a job has done to images, for instance ``encoded``."""
    from rich.console import Console
    from rich.markup import escape

    from latentset.datasets.store.summary import failed_lines, make_table, summarise

    console = Console()
    location = result.store.location
    retried = result.retried
    if result.was_complete and retried is None:
        console.print(f"{escape(str(location))} is complete already; nothing to do.")
        return
    rows = []
    if not result.was_complete:
        rows.append((f"{done} in this run", f"{result.encoded} images in {result.seconds:.1f} s"))
    if result.seconds > 0 and result.encoded:
        rows.append(("speed", f"{result.encoded / result.seconds:.1f} images/s"))
    if result.reused:
        rows.append(("from earlier runs", f"{result.reused} images"))
    if retried is not None:
        now = f"{retried.repaired} have latents now, {retried.samples - retried.repaired} failed"
        rows.append(("tried again", f"{retried.samples} images: {now}"))
    console.print(
        make_table(f"{location.name} is complete", [*summarise(result.store, brief=True), *rows])
    )
    for line in failed_lines(result.store, _FAILED_SHOWN):
        console.print(escape(line), highlight=False)
