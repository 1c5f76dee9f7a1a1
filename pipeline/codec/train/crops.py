"""Endless random crops of folders of images, for training."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from latentset.datasets.errors import ImageError, TrainingError
from latentset.datasets.sources.images import read_image
from latentset.datasets.sources.tree import list_images
from latentset.pipeline.tensorflow_setup import tf


def training_crops(
    folders: Sequence[Path], *, crop: int, batch: int, seed: int, skipped: dict[str, str]
) -> Any:
    """Build the endless stream of training batches, float32 (batch, crop, crop, 3), 0 to 255.

    Each folder is searched recursively and drawn from equally often; SourceError where one has no
    image, TrainingError where none can be decoded. Smaller images are enlarged. ``seed`` decides
    order, crops and flips: a resumed run gives another one, so that it does not see its first crops
    again. ``skipped`` is filled with the files that cannot be decoded, path to reason.
    """

    def read(path: tf.Tensor) -> tf.Tensor:
        decode = functools.partial(_decode_or_nothing, skipped)
        image = tf.numpy_function(decode, [path], tf.uint8, stateful=False)
        image.set_shape((None, None, 3))
        return image

    def take_crop(image: tf.Tensor, random: tf.Tensor) -> tf.Tensor:
        size = tf.shape(image)[:2]
        short = tf.reduce_min(size)
        if short < crop:
            target = tf.cast(size, tf.float32) * (crop / tf.cast(short, tf.float32))
            target = tf.cast(tf.math.ceil(target), tf.int32)
            image = tf.cast(tf.image.resize(image, tf.maximum(target, crop)), tf.uint8)
        image = tf.image.stateless_random_crop(image, (crop, crop, 3), random)
        image = tf.image.stateless_random_flip_left_right(image, random + 1)
        return tf.cast(image, tf.float32)

    def of_folder(folder: Path, number: int) -> Any:
        paths = [os.fsencode(path) for path in list_images(folder)]
        if not any(_decode_or_nothing(skipped, path).size for path in paths):
            raise TrainingError(
                f"{folder}: none of its {len(paths)} images can be decoded, the first "
                f"because: {skipped[os.fsdecode(paths[0])]}"
            )
        files = tf.data.Dataset.from_tensor_slices(paths)
        files = files.shuffle(len(paths), seed=seed + number).repeat()
        images = files.map(read, num_parallel_calls=2, deterministic=True)
        images = images.filter(lambda image: tf.size(image) > 0)
        numbers = tf.data.Dataset.random(seed=seed + 7919 * (number + 1)).batch(2)
        pairs = tf.data.Dataset.zip((images, numbers))
        return pairs.map(take_crop)

    streams = [of_folder(folder, i) for i, folder in enumerate(folders)]
    crops = tf.data.Dataset.choose_from_datasets(
        streams, tf.data.Dataset.range(len(streams)).repeat()
    )
    return crops.batch(batch, drop_remainder=True).prefetch(4)


def _decode_or_nothing(skipped: dict[str, str], path: bytes) -> Any:
    """Decode one file to uint8 (H, W, 3); an empty array where that fails."""
    name = os.fsdecode(path)
    try:
        return read_image(Path(name))
    except ImageError as error:
        skipped.setdefault(name, f"{error.status}: {error}")
        return np.zeros((0, 0, 3), np.uint8)
