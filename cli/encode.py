"""The command `latentset encode`, and what `latentset decode` has in common with it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from latentset.cli.console import JsonOption, announce, print_json
from latentset.cli.job_output import (
    result_json,
    show_source,
    source_json,
    summarise_result,
)
from latentset.cli.store import parse_shard_bytes
from latentset.datasets.store.formats import Format
from latentset.pipeline.cpu_isa import VARIABLE, CpuIsa, fix_cpu_isa

if TYPE_CHECKING:
    from latentset.pipeline.jobs.progress import ProgressView

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
ShardBytesOption = Annotated[
    int | None,
    typer.Option(
        parser=parse_shard_bytes,
        metavar="SIZE",
        help="Size of a shard of the first array before compression: 1MiB to 1GiB.",
        show_default="32MiB",
    ),
]
ShardMibOption = Annotated[int, typer.Option(min=1, max=1024, hidden=True)]
"""Of earlier versions."""
CpuIsaOption = Annotated[
    CpuIsa,
    typer.Option(
        envvar=VARIABLE,
        help="Vector instructions of every worker's CPU: the same give the same symbols. native: "
        "the best of each; faster, and symbols may depend on the worker.",
    ),
]


def encode(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Folder of images or tar files, s3://… or gs://…, a tar file, or a CSV/Parquet "
            "list.",
        ),
    ],
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE",
            help="Folder, HDF5 file, s3://… or gs://… to make. The same command resumes it. "
            "With several codecs, a folder in which each gets a store of its name.",
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
        Literal["auto", "imagefolder", "minc2500", "imagenet", "list", "tar"],
        typer.Option(help="Layout of SOURCE."),
    ] = "auto",
    minc_split: Annotated[
        int | None, typer.Option(help="minc2500: which split, 1 to 5.", show_default="1")
    ] = None,
    devkit: Annotated[
        Path | None, typer.Option(help="imagenet, flat val folder: devkit or ground-truth .txt.")
    ] = None,
    root: Annotated[
        str | None,
        typer.Option(help="list: folder, s3://… or gs://… that its paths are relative to."),
    ] = None,
    scheduler: SchedulerOption = None,
    cluster: ClusterOption = None,
    workers: WorkersOption = None,
    wait: WaitOption = 60,
    cpu_isa: CpuIsaOption = CpuIsa.avx2,
    batch: BatchOption = 32,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="80/10/10",
            help="Percent of each class for train, val and test, or 80/20 for train and val, at "
            "random, where SOURCE has no splits.",
        ),
    ] = None,
    split_seed: Annotated[int, typer.Option(min=0, help="Seed of --split.")] = 0,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="similar-classes|split-names|nested-classes|disjoint-splits",
            help="What is refused as a likely mistake otherwise: classes whose names differ in "
            "case or blanks; folders that are named like splits as classes; class folders that "
            "hold folders of the same names; a split without a class of train. Repeatable.",
        ),
    ] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Print what SOURCE is understood to be, and stop.")
    ] = False,
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
    shard_bytes: ShardBytesOption = None,
    shard_mib: ShardMibOption = 32,
    as_json: JsonOption = False,
) -> None:
    """Encode images into a store, or resume an earlier run."""
    announce(f"listing the images of {source}")
    from latentset.datasets.errors import JobError
    from latentset.datasets.sources import open_root, open_source
    from latentset.datasets.sources.listing import check_root
    from latentset.datasets.sources.resize import ResizeRule
    from latentset.datasets.sources.splits import assign_splits, parse_fractions
    from latentset.datasets.storage.location import open_location
    from latentset.pipeline.encode.encode import EncodeOptions, encode_all
    from latentset.pipeline.jobs.progress import choose_view
    from latentset.pipeline.jobs.target import choose_container

    refuse_mixed_workers(scheduler, workers, cluster)
    if codec != ["none"]:
        fix_cpu_isa(cpu_isa)
    images, location = open_root(source), open_location(store)
    if isinstance(images, Path):
        inside = images.is_dir() and Path(str(location)).is_relative_to(images.resolve())
    else:
        inside = f"{location}/".startswith(f"{images}/")
    if inside:
        raise typer.BadParameter(
            f"STORE {store} is inside SOURCE {source}, and would be listed with the images; "
            "name a folder elsewhere"
        )
    options = EncodeOptions(
        resize=ResizeRule.parse(resize),
        format=format,
        shard_bytes=shard_bytes or shard_mib << 20,
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
    stores = _name_stores(store, codec, format)
    for where, _ in stores:
        choose_container(open_location(where), format)
    with interrupted(options.view):
        listed = open_source(
            images,
            source_kind,
            minc_split=minc_split,
            devkit=devkit,
            root=root,
            allow=allow or (),
        )
        check_root(listed)
        if split is not None:
            listed = assign_splits(listed, parse_fractions(split), split_seed)
        if plan_only and as_json:
            print_json(source_json(listed))
            return
        show_source(listed, source if listed.kind == "tar" else "", to_stderr=not plan_only)
        if plan_only:
            return
        results = encode_all(listed, stores, options)
    if as_json:
        print_json({"stores": [result_json(result) for result in results]})
    else:
        for result in results:
            summarise_result(result, "encoded")
    for result in results:
        manifest = result.store.manifest
        if manifest is not None and manifest.samples.ok == 0:
            raise JobError(
                f"none of the {manifest.samples.total} images of {result.store.location} could be "
                "encoded: repair them, then run the same command with --retry-failed"
            )


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
