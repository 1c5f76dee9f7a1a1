"""How long it takes from stored bytes to class scores, with latents and with pixels.

    python benchmarks/bytes_to_logits.py FOLDER [--encode-python PATH] [--repeats 7]

FOLDER is what make_store.py made. Claim: for one image and for a batch,

    store -> reader -> dequantisation, crop to 28x28 -> FA-cResNet-39 -> logits

is ahead of what latents replace,

    strings -> range decoding -> synthesis -> pixels -> crop to 224x224 -> ResNet-50 -> logits

on the same images of 256x256, codec of 128 and 192 filters, all cores for each, 1,000 classes,
random weights. Each part is timed. Run it in the train environment; range decoding and synthesis
run in a process of the encode environment, by the codec's own receiver, and the hand-over of pixels
from there to the network is not counted. Range decoding includes h_s, which it waits for.

Paper (Table 2, on a GPU): 1.8 ms against 296 + 2.2 ms.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import measure
import numpy as np

BATCHES = (1, 32)
CLASSES = 1000


def decoding(number: int, folder: str, threads: int) -> measure.Works:
    """Works of the encode environment: ``range N`` and ``receiver N``."""
    from PIL import Image

    from latentset.pipeline.codec.load.codec import load_codec
    from latentset.pipeline.codec.load.decoders import find_receiver_decoders
    from latentset.pipeline.codec.load.graph import Graph, extract, flatten
    from latentset.pipeline.codec.load.metagraph import read_codec_file
    from latentset.pipeline.codec.load.program import Program

    path = Path(folder) / "full.metagraph"
    codec = load_codec(str(path), threads=threads)
    files = sorted((Path(folder) / "images").rglob("*.jpg"))[: max(BATCHES)]
    sent = [codec.sender(np.asarray(Image.open(file))) for file in files]
    file = read_codec_file(path)
    assert file.receiver is not None  # our own export has one
    nodes = file.receiver.nodes()
    graph = flatten(extract(file.metagraph.graph_def, nodes), nodes)
    symbols = find_receiver_decoders(Graph(graph))["y_hat"].symbols
    inputs = [port.tensor for port in file.receiver.inputs]
    outputs = {
        "range": [str(symbols)],
        "receiver": [port.tensor for port in file.receiver.outputs],
    }
    works: dict[str, measure.Work] = {}
    for name, tensors in outputs.items():
        nodes = [tensor.partition(":")[0] for tensor in (*tensors, *inputs)]
        program = Program(extract(graph, nodes), inputs, tensors, threads=threads)
        for batch in BATCHES:
            # Strings one after the other, sizes once: all images have the same.
            channels = [
                np.concatenate([s[k] for s in sent[:batch]]) if value.dtype.kind in "OS" else value
                for k, value in enumerate(sent[0])
            ]
            works[f"{name} {batch}"] = partial(_counted, batch, partial(program.run, *channels))
    return works


def classifying(number: int, folder: str, threads: int) -> measure.Works:
    """Works of the train environment: parts and whole of ours, and ResNet-50."""
    import torch
    from torchvision.models import resnet50

    from latentset.datasets.store import open_store
    from latentset.train.data.batches import Batch, LatentReader
    from latentset.train.data.crop import gather, gather_index
    from latentset.train.data.split import Split, select_split, split_names
    from latentset.train.models.fa_cresnet import FACResNet
    from latentset.train.models.networks import FACResNetNetwork

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    store = open_store(Path(folder) / "store.zarr")
    codec = store.header.codec
    if codec is None:
        raise SystemExit(f"{folder}/store.zarr: expected a store of latents")
    table = torch.zeros(256)
    table[: len(codec.scale_table)] = torch.tensor(codec.scale_table)
    split = select_split(store, split_names(store)[0])
    network = FACResNet(FACResNetNetwork(channels=codec.channels, num_classes=CLASSES)).eval()
    resnet = resnet50(weights=None).eval()
    mean = torch.tensor((0.485, 0.456, 0.406))[:, None, None]
    std = torch.tensor((0.229, 0.224, 0.225))[:, None, None]

    def part(count: int) -> Split:
        names = ("samples", "labels", "first_rows", "heights", "widths")
        first = {name: getattr(split, name)[:count] for name in names}
        return replace(split, ids=split.ids[:count], **first)

    def read(reader: LatentReader) -> Batch:
        return next(iter(reader.batches(0)))

    def dequantise(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        index = gather_index(batch.windows, 28)
        scale_index = gather(batch.rows["scale_index"], index)
        y_hat = gather(batch.rows["y_hat"], index).to(torch.float32)
        return y_hat, table[scale_index.to(torch.int32)]

    def ours(reader: LatentReader) -> torch.Tensor:
        logits: torch.Tensor = network(*dequantise(read(reader)))
        return logits

    def classify_pixels(pixels: torch.Tensor) -> torch.Tensor:
        cut = pixels[:, 16:240, 16:240].permute(0, 3, 1, 2).to(torch.float32) / 255
        logits: torch.Tensor = resnet((cut - mean) / std)
        return logits

    works: dict[str, measure.Work] = {}
    for count in BATCHES:
        reader = LatentReader(store, part(count), batch_size=count)
        batch = read(reader)
        example = dequantise(batch)
        pixels = torch.randint(0, 256, (count, 256, 256, 3), dtype=torch.uint8)
        parts: dict[str, Callable[[], object]] = {
            "read": partial(read, reader),
            "dequantise": partial(dequantise, batch),
            "network": partial(network, *example),
            "ours": partial(ours, reader),
            "ResNet-50": partial(classify_pixels, pixels),
        }
        for name, work in parts.items():
            works[f"{name} {count}"] = partial(_counted, count, work)
    return works


def _counted(count: int, work: Callable[[], object]) -> int:
    work()
    return count


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="made by make_store.py")
    parser.add_argument("--encode-python", type=Path, help="interpreter that has TensorFlow")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement, at least")
    options = parser.parse_args()
    measure.describe_machine()
    cores = measure.cores()
    arguments = str(options.folder.resolve()), len(cores)
    encode = measure.sibling("encode", options.encode_python)
    with (
        measure.Workers(
            decoding, *arguments, cores=[cores], threads=len(cores), python=encode
        ) as tensorflow,
        measure.Workers(classifying, *arguments, cores=[cores], threads=len(cores)) as torch,
    ):
        for count in BATCHES:
            print(f"\n{count} image{'s' if count > 1 else ''} a call; milliseconds an image")

            def milliseconds(workers: measure.Workers, name: str, count: int = count) -> float:
                return 1000 / workers.rate(f"{name} {count}", options.seconds)

            found = measure.in_turn(
                {
                    "ours: bytes to logits": partial(milliseconds, torch, "ours"),
                    "  reader: stored bytes to integers": partial(milliseconds, torch, "read"),
                    "  crop and dequantisation": partial(milliseconds, torch, "dequantise"),
                    "  FA-cResNet-39": partial(milliseconds, torch, "network"),
                    "pixels: range decoding and synthesis": partial(
                        milliseconds, tensorflow, "receiver"
                    ),
                    "  of which range decoding": partial(milliseconds, tensorflow, "range"),
                    "pixels: ResNet-50": partial(milliseconds, torch, "ResNet-50"),
                },
                options.repeats,
                "ms",
            )
            ours = found["ours: bytes to logits"]
            decoded = found["pixels: range decoding and synthesis"]
            classified = found["pixels: ResNet-50"]
            both = zip(decoded.values, classified.values, strict=True)
            pixels = measure.Series("pixels: together", tuple(map(sum, both)), "ms").show()
            measure.ratio("pixels against ours", pixels, ours, 1.0)


if __name__ == "__main__":
    main()
