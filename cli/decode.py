"""The command `latentset decode`."""

from pathlib import Path
from typing import Annotated

import typer

from latentset.cli.encode import (
    Cluster,
    CpuIsaOption,
    interrupted,
    refuse_mixed_workers,
    summarise_result,
)
from latentset.datasets.store.formats import Format
from latentset.pipeline.cpu_isa import CpuIsa, fix_cpu_isa


def decode(
    store: Annotated[str, typer.Argument(help="A store of latents: folder, HDF5 file or URL.")],
    pixels: Annotated[
        str,
        typer.Argument(
            help="Folder, HDF5 file, s3://… or gs://… to make. The same command goes on with it."
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
        Path | None,
        typer.Option(
            help="Root of the images that STORE was made from: PSNR and MS-SSIM of each "
            "decoded image are measured and stored."
        ),
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(help="Zarr objects or one HDF5 file.", show_default="by the name of PIXELS"),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a running Dask scheduler.")
    ] = None,
    cluster: Annotated[
        Cluster | None,
        typer.Option(help="Have a queueing system start workers, --workers of them at most."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Local processes.", show_default="one a core")
    ] = None,
    wait: Annotated[
        float,
        typer.Option(
            min=0, help="Minutes without any worker (--scheduler, --cluster) after which to stop."
        ),
    ] = 60,
    cpu_isa: CpuIsaOption = CpuIsa.avx2,
    batch: Annotated[int, typer.Option(min=1, help="Images a batch, at most.")] = 32,
    shard_mib: Annotated[
        int, typer.Option(min=1, max=1024, help="MiB of pixels a shard, before compression.")
    ] = 32,
) -> None:
    """Decode a store of latents into a store of pixels, or go on where an earlier run stopped."""
    from latentset.datasets.sources.resize import ResizeRule
    from latentset.pipeline.decode.job import decode as run
    from latentset.pipeline.jobs.progress import choose_view

    refuse_mixed_workers(scheduler, workers, cluster)
    fix_cpu_isa(cpu_isa)
    view, rule = choose_view(), ResizeRule.parse(resize)
    with interrupted(view):
        result = run(
            store,
            pixels,
            codec=codec,
            resize=rule,
            originals=originals,
            format=format,
            scheduler=scheduler,
            workers=workers,
            queue=cluster.value if cluster else None,
            wait_s=60 * wait,
            batch=batch,
            shard_bytes=shard_mib << 20,
            view=view,
        )
    summarise_result(result, "decoded")
