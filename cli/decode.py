"""The command `latentset decode`."""

from typing import Annotated

import typer

from latentset.cli.console import announce
from latentset.cli.encode import (
    BatchOption,
    ClusterOption,
    CpuIsaOption,
    SchedulerOption,
    ShardBytesOption,
    ShardMibOption,
    WaitOption,
    WorkersOption,
    interrupted,
    refuse_mixed_workers,
)
from latentset.cli.job_output import summarise_result
from latentset.datasets.store.formats import Format
from latentset.pipeline.cpu_isa import CpuIsa, fix_cpu_isa


def decode(
    store: Annotated[str, typer.Argument(help="A store of latents: folder, HDF5 file or URL.")],
    pixels: Annotated[
        str,
        typer.Argument(
            help="Folder, HDF5 file, s3://… or gs://… to make. The same command resumes it."
        ),
    ],
    codec: Annotated[
        str | None,
        typer.Option(help="Name or file of the codec.", show_default="the one that STORE names"),
    ] = None,
    resize: Annotated[
        str,
        typer.Option(help="After decoding: none, short:N (shorter side), exact:HxW or exact:N."),
    ] = "none",
    originals: Annotated[
        str | None,
        typer.Option(
            help="Root of the images that STORE was made from (folder, s3://… or gs://…): PSNR and "
            "MS-SSIM of each decoded image are measured and stored."
        ),
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(help="Zarr objects or one HDF5 file.", show_default="by the name of PIXELS"),
    ] = None,
    scheduler: SchedulerOption = None,
    cluster: ClusterOption = None,
    workers: WorkersOption = None,
    wait: WaitOption = 60,
    cpu_isa: CpuIsaOption = CpuIsa.avx2,
    batch: BatchOption = 32,
    shard_bytes: ShardBytesOption = None,
    shard_mib: ShardMibOption = 32,
) -> None:
    """Decode latents into a store of pixels, or resume."""
    announce("loading TensorFlow")
    from latentset.datasets.sources import open_root
    from latentset.datasets.sources.resize import ResizeRule
    from latentset.pipeline.decode.decode import decode as run
    from latentset.pipeline.jobs.options import JobOptions
    from latentset.pipeline.jobs.progress import choose_view

    refuse_mixed_workers(scheduler, workers, cluster)
    fix_cpu_isa(cpu_isa)
    options = JobOptions(
        resize=ResizeRule.parse(resize),
        format=format,
        shard_bytes=shard_bytes or shard_mib << 20,
        batch=batch,
        scheduler=scheduler,
        workers=workers,
        queue=cluster,
        wait_s=60 * wait,
        view=choose_view(),
    )
    root = None if originals is None else open_root(originals)
    with interrupted(options.view):
        result = run(store, pixels, options, codec=codec, originals=root)
    summarise_result(result, "decoded")
