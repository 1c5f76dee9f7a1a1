"""Classes of a store's samples as a trained classifier predicts them, as a table."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch

from latentset.datasets.errors import TrainingError
from latentset.datasets.storage.atomic import atomic_file
from latentset.datasets.store import Store
from latentset.datasets.terminal import printable
from latentset.train.data.split import select_samples
from latentset.train.models.networks import Table
from latentset.train.recipe.recipe import Accelerator, EvalCrop
from latentset.train.run.classifier import Classifier, predict_split
from latentset.train.run.evaluate import load_classifier, override
from latentset.train.run.run_files import check_target


class Prediction(Table):
    """The result of ``latentset predict``, but the table."""

    samples: int
    failed: int
    """Samples of the store that were not encoded, and are not in the table."""
    notes: tuple[str, ...]
    """How the store differs from the one that the network was trained from."""


def write_predictions(
    checkpoint: Path,
    store: Path | str,
    out: Path,
    *,
    top: int = 1,
    crop: EvalCrop | None = None,
    accelerator: Accelerator | None = None,
    cache: Path | None = None,
    cache_bytes: int | None = None,
    trust_store: bool = False,
) -> Prediction:
    """Predict the classes of every encoded sample of a store, and write them to ``out``.

    ``out`` ends in .csv or .parquet. The classes are those of the run; the store may have none.
    Unless ``trust_store``, the shards of a local store are compared with their digests.
    """
    if out.suffix.lower() not in (".csv", ".parquet"):
        raise TrainingError(f"{out}: expected NAME.csv or NAME.parquet")
    check_target(out)
    with atomic_file(out) as partial:
        classifier, record, _, opened, notes = load_classifier(
            checkpoint, store, cache=cache, cache_bytes=cache_bytes, same_classes=False
        )
        classifier.recipe = override(record.recipe, crop=crop, accelerator=accelerator)
        table = predict_samples(
            classifier, opened, record.store.classes, top, check_shards=not trust_store
        )
        if out.suffix.lower() == ".csv":
            pyarrow.csv.write_csv(table, partial)
        else:
            pyarrow.parquet.write_table(table, partial)
    return Prediction(
        samples=table.num_rows, failed=opened.samples.num_rows - table.num_rows, notes=notes
    )


def predict_samples(
    classifier: Classifier,
    store: Store,
    classes: tuple[str, ...],
    top: int,
    *,
    check_shards: bool = True,
) -> pa.Table:
    """Tabulate the ``top`` most probable classes of each sample.

    Columns ``id``, ``split``, ``label`` (the store's class; null where it has none), ``class``,
    ``probability``, then ``class_2``, ``probability_2`` and so on.
    """
    split, recipe = select_samples(store), classifier.recipe
    ranked = [
        tuple(part.cpu() for part in logits.softmax(dim=1).topk(min(top, len(classes)), dim=1))
        for _, logits in predict_split(classifier, recipe, store, split, check_shards=check_shards)
    ]
    probabilities, found = (torch.cat(column).numpy() for column in zip(*ranked, strict=True))
    names = pa.array(classes, pa.string())
    splits = store.samples["split"].take(split.samples).to_pylist()
    labels = pa.array(split.labels, mask=split.labels < 0)
    columns = {
        "id": pa.array([printable(name) for name in split.ids]),
        "split": pa.array([printable(name) for name in splits]),
        "label": pa.array(store.header.source.classes, pa.string()).take(labels),
    }
    for k in range(found.shape[1]):
        number = f"_{k + 1}" if k else ""
        columns[f"class{number}"] = names.take(pa.array(found[:, k]))
        columns[f"probability{number}"] = pa.array(probabilities[:, k])
    return pa.table(columns)
