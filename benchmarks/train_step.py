"""How fast a training step is, and what feeding it from a store costs.

    python benchmarks/train_step.py STORE [--batch 64 128 256 512 1024] [--modes fp32 bf16 compile]
        [--size 28] [--width 64] [--repeats 5] [--seconds 5]

STORE holds latents whose split "train" fills the largest batch a few times. Claim: FA-cResNet-39 is
fed from the store as fast as from batches that lie on the device already (ratio at least 0.97).
Both sides cut the same crops and make the same steps (loss, gradients, SGD with momentum); on a GPU
"bf16" and "compile" run under autocast with channels last, "compile" through torch.compile too.
Printed as well: the most memory that PyTorch held, and where the time of a step goes.

Run it in the train environment.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import count, cycle, islice
from pathlib import Path

import measure
import torch

from latentset.datasets.store import Store, open_store
from latentset.train.data.batches import Batch
from latentset.train.data.split import select_split
from latentset.train.models.build import build_network
from latentset.train.recipe.recipe import Recipe, resolve
from latentset.train.recipe.recipe_file import parse_recipe
from latentset.train.run.classifier import Classifier, open_reader
from latentset.train.run.loss import classification_loss

KEPT = 4
"""Batches that lie on the device."""


class Step:
    """A network in training.

    Args:
        store: The store.
        recipe: The resolved recipe.
        mode: ``fp32``, ``bf16`` or ``compile``.
        device: Where.
    """

    def __init__(self, store: Store, recipe: Recipe, mode: str, device: torch.device) -> None:
        torch.manual_seed(0)
        self.device = device
        network = build_network(recipe.model)
        self.module = Classifier(network, recipe, store.header).to(device).train()
        if mode != "fp32":
            network.to(memory_format=torch.channels_last)
        if mode == "compile":
            network.compile()
        self._mixed = mode != "fp32"
        self._sgd = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision, where the mode has it."""
        if not self._mixed:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def feed(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Cut crops and make latents of them."""
        with torch.no_grad():
            inputs: tuple[torch.Tensor, ...] = self.module.input(batch)
        return inputs

    def loss(self, inputs: tuple[torch.Tensor, ...], labels: torch.Tensor) -> torch.Tensor:
        """Forward."""
        with self.autocast():
            logits = self.module.network(*inputs)
        return classification_loss(logits.float(), labels)

    def learn(self, batch: Batch) -> int:
        """One whole step."""
        loss = self.loss(self.feed(batch), batch.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self._sgd.step()
        self._sgd.zero_grad()
        return len(batch.labels)

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def make_recipe(store: Store, options: argparse.Namespace, batch: int, mode: str) -> Recipe:
    """FA-cResNet on this store."""
    tables = {
        "name": "benchmark",
        "model": {"kind": "fa-cresnet", "n": [3, 4, 5], "width": options.width},
        "data": {"batch_size": batch, "size": options.size},
        "schedule": {"epochs": 1, "learning_rate": 0.01},
        "device": {"channels_last": mode != "fp32"},
    }
    return resolve(parse_recipe(tables, "benchmark"), store.header, str(store.location))


def run(store: Store, options: argparse.Namespace, batch: int, mode: str) -> None:
    """Measure one batch size in one mode."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = make_recipe(store, options, batch, mode)
    step = Step(store, recipe, mode, device)
    reader = open_reader(
        store,
        select_split(store, recipe.data.train_split),
        recipe,
        training=True,
        pin_memory=device.type == "cuda",
    )
    if len(reader) == 0:
        raise SystemExit(f"{store.location}: its split train does not fill a batch of {batch}")
    kept = [b.to(device) for b in islice(reader.batches(0), KEPT)]

    def from_store() -> Iterator[Batch]:
        for epoch in count():
            for each in reader.batches(epoch):
                yield each.to(device)

    def steps(batches: Iterator[Batch]) -> int:
        samples = sum(step.learn(each) for each in islice(batches, options.steps))
        step.wait()
        return samples

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    print(f"\nbatch {batch}, {mode}")
    fed, lying = from_store(), cycle(kept)
    found = measure.in_turn(
        {
            "from the store": lambda: measure.rate(partial(steps, fed), options.seconds),
            "from the device": lambda: measure.rate(partial(steps, lying), options.seconds),
        },
        options.repeats,
        "samples/s",
    )
    bar = 0.97 if device.type == "cuda" else None
    measure.ratio("store / device", found["from the store"], found["from the device"], bar)
    if device.type == "cuda":
        gib = torch.cuda.max_memory_allocated() / 2**30
        print(f"{'most memory held':58s} {gib:9.2f} GiB")
    _show_parts(step, kept[0], options)


def _show_parts(step: Step, batch: Batch, options: argparse.Namespace) -> None:
    """Print what the parts of a step take, each by itself."""
    inputs = step.feed(batch)

    def forward() -> None:
        with torch.no_grad():
            step.loss(inputs, batch.labels)

    def both() -> None:
        step.loss(inputs, batch.labels).backward()  # type: ignore[no-untyped-call]

    parts: dict[str, Callable[[], object]] = {
        "  crops and dequantisation": partial(step.feed, batch),
        "  forward": forward,
        "  forward and backward": both,
        "  whole step": partial(step.learn, batch),
    }

    def milliseconds(work: Callable[[], object]) -> float:
        def once() -> int:
            work()
            step.wait()
            return 1

        return 1000 / measure.rate(once, options.seconds / 4)

    works = {name: partial(milliseconds, work) for name, work in parts.items()}
    measure.in_turn(works, options.repeats, "ms")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument(
        "--modes", nargs="+", choices=["fp32", "bf16", "compile"], default=["fp32", "bf16"]
    )
    parser.add_argument("--size", type=int, default=28, help="positions a side")
    parser.add_argument("--width", type=int, default=64, help="of the ResNet")
    parser.add_argument("--steps", type=int, default=8, help="between looks at the clock")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of one measurement, at least")
    options = parser.parse_args()
    measure.describe_machine()
    print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU: on the CPU")
    store = open_store(options.store)
    for mode in options.modes:
        for batch in options.batch:
            run(store, options, batch, mode)


if __name__ == "__main__":
    main()
