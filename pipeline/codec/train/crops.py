"""Endless random crops of folders of images, for training."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from latentset.datasets.errors import TrainingError
from latentset.pipeline.tensorflow_setup import tf

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif"})


def list_images(folder: Path) -> list[Path]:
    """List the images below a folder, sorted; TrainingError if there is none."""
    if not folder.is_dir():
        raise TrainingError(f"{folder}: no such folder of images")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise TrainingError(f"{folder}: no images ({', '.join(sorted(IMAGE_SUFFIXES))}) below it")
    return found


def training_crops(
    folders: Sequence[Path], *, crop: int, batch: int, seed: int, skipped: dict[str, str]
) -> Any:
    """Build the endless stream of training batches, float32 (batch, crop, crop, 3), 0 to 255.

    Each folder is searched recursively and drawn from equally often; TrainingError where one has no
    image that can be decoded. Smaller images are enlarged. ``seed`` decides order, crops and flips:
    a resumed run gives another one, so that it does not see its first crops again. ``skipped`` is
    filled with the files that cannot be decoded, path to reason.
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
        paths = [str(p) for p in list_images(folder)]
        if not any(_decode_or_nothing(skipped, p.encode()).size for p in paths):
            raise TrainingError(
                f"{folder}: none of its {len(paths)} images can be decoded, the first "
                f"because: {skipped[paths[0]]}"
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
    try:
        data = tf.io.read_file(path)
        return tf.io.decode_image(data, channels=3, expand_animations=False).numpy()
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as error:
        skipped.setdefault(path.decode(), str(error).splitlines()[0])
        return np.zeros((0, 0, 3), np.uint8)
