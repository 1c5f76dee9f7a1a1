"""The commands that make the store of an experiment: for headers of recipes, and for messages."""

from latentset.paper.experiments import (
    ORIGINALS,
    Experiment,
    codec_name,
    data_sets,
    learns_pixels,
)


def store_name(experiment: Experiment) -> str:
    """Name the store that an experiment learns from.

    Args:
        experiment: The experiment.

    Returns:
        A name for examples, such as ``minc2500-msssim-4.zarr``.
    """
    codec = experiment.codec or "originals"
    pixels = "-decoded" if learns_pixels(experiment) and experiment.codec else ""
    return f"{experiment.data_set}-{codec}{pixels}.zarr"


def store_commands(experiment: Experiment) -> list[str]:
    """Say how the store that an experiment learns from is made.

    Args:
        experiment: The experiment.

    Returns:
        Commands, in order.
    """
    data_set, store = data_sets()[experiment.data_set], store_name(experiment)
    images, pixels = data_set.images, _resize(data_set.resize_pixels)
    root = f" --root {data_set.root}" if data_set.root else ""
    if not experiment.codec:
        return [f"latentset encode {images} {store} --codec {ORIGINALS}{root}{pixels}"]
    latents = store_name(Experiment(experiment.data_set, "fa-cresnet", experiment.codec))
    options = f"--codec {codec_name(experiment)}{root}{_resize(data_set.resize_latents)}"
    commands = [f"latentset encode {images} {latents} {options}"]
    if learns_pixels(experiment):
        originals = data_set.root or images
        commands.append(f"latentset decode {latents} {store}{pixels} --originals {originals}")
    return commands


def _resize(rule: str) -> str:
    return "" if rule == "none" else f" --resize {rule}"
