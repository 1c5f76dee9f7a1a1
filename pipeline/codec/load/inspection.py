"""What ``latentset codec inspect`` prints: which tensor of a graph is which, and why."""

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from latentset.datasets.errors import CodecError
from latentset.datasets.terminal import plain, printable
from latentset.pipeline.codec.catalogue import PUBLISHED
from latentset.pipeline.codec.load.codec import Codec
from latentset.pipeline.codec.load.program import LATENT_TENSORS
from latentset.pipeline.codec.load.selfcheck import SIZE


def describe(codec: Codec) -> list[RenderableType]:
    """Return what was found in a codec's graph, as tables for the console."""
    tensors = _table("tensor", "name, and why it is this one", title="Tensors")
    for what, name, why in [*_sender_rows(codec), *_receiver_rows(codec)]:
        tensors.add_row(plain(what), _lines(name, why))
    counts = sorted(codec.report.op_counts.items(), key=lambda item: (-item[1], item[0]))
    ops = Text("Ops that compute latents: ", style="bold")
    ops.append(", ".join(f"{op} {count}" for op, count in counts), style="not bold")
    return [_summary(codec), tensors, _signatures(codec), ops]


def _summary(codec: Codec) -> Table:
    info, report, check = codec.info, codec.report, codec.self_check
    generation = {"tfc1": "tensorflow-compression 1", "tfc2": "tensorflow-compression 2"}
    scales = info.scale_table
    rows = {
        "codec": info.name,
        "SHA-256": info.sha256,
        "size": f"{codec.file.size_bytes / 1e6:.1f} MB",
        "form": f"{info.form} ({generation[info.form]})",
        "y_hat": f"{info.channels} channels, one position per {info.y_downsampling} pixels",
        "z_hat": f"{info.z_channels} channels, one position per {info.z_downsampling} pixels",
        "scale table": f"{scales[0]:.4g} to {scales[-1]:.4g}, {len(scales)} scales",
        "its fit": (
            f"the rows of y's table are at most {report.scale_distance:.2%} off the Gaussians of "
            "these scales (total variation distance)"
        ),
        "batch": "any size" if codec.free_batch else "fixed at 1 in the graph: one by one",
    }
    if info.name in PUBLISHED:
        rows["listing"] = (
            "channels, tables and form of h_s are those that are publicly listed for this name"
        )
    if check is not None:
        rows["self-check"] = (
            f"passed: latents imply {check.implied_bits:.0f} bits, the bitstreams have "
            f"{check.real_bits:.0f} ({check.difference:+.2%})"
        )
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for key, value in rows.items():
        grid.add_row(Text(key), plain(value))
    return grid


def _sender_rows(codec: Codec) -> Iterator[tuple[str, str, str]]:
    """Yield what a tensor is, its name, and how that was found."""
    info, report = codec.info, codec.report
    y, z, decoded_z = report.structure.y, report.structure.z, report.decoded_z
    yield "input image", info.tensors["input_image"], "input of 'sender'"
    if info.h_s_exact_to is not None:
        exactness = (
            f"Follows from z_hat in exact integers, |z_hat| up to {info.h_s_exact_to}: the same on "
            "every CPU"
        )
    elif report.facts.integer_h_s:
        exactness = "Follows from z_hat in integers, whose sums may pass what float32 holds exactly"
    else:
        exactness = "Computed with fractions: near a boundary it may differ between devices"
    of_y = f"symbols of y: range-encoded, one row a scale, by {y.op}\n{y.node}"
    of_index = f"index of that op, the row of each symbol of y. {exactness}"
    of_z = f"symbols of z: range-encoded, one row a channel, by {z.op}\n{z.node}"
    found = (y.symbols, of_y), (report.structure.scale_index, of_index), (z.symbols, of_z)
    for key, (ref, why) in zip(LATENT_TENSORS, found, strict=True):
        name = info.tensors[key]
        yield key, name, why if name == str(ref) else "named by the caller"
    if decoded_z is not None:
        why = "replaced by the symbols, since coding loses nothing; in the sender yielded by"
        node, op, symbols, _ = decoded_z.decoder
        yield "z_hat, decoded", str(symbols), f"{why} {op}\n{node}"
    how = "added to the decoded symbols" if decoded_z else "from the rounding of z"
    span = f"{min(info.z_offset):.4g} to {max(info.z_offset):.4g} over the channels"
    yield "offset of z", ", ".join(map(str, report.z_offset)) or "none", f"{how}: {span}"
    sizes = codec.sizes(*SIZE)
    for port in codec.file.sender.outputs:
        if (role := codec.size_roles.get(port.key)) is not None:
            size, image = ("x".join(map(str, sizes[r])) for r in (role, "image"))
            why = f"{port.key} of 'sender': {size} for an image of {image}"
            yield f"size of {role}", port.tensor, why


def _receiver_rows(codec: Codec) -> Iterator[tuple[str, str, str]]:
    try:
        takes = codec.synthesis.takes
    except CodecError as error:
        yield "output image", "none", f"this codec cannot decode: {error}"
        return
    for role, (node, op, symbols, _) in takes.items():
        why = "'decode' starts here, from stored symbols; in the receiver yielded by"
        yield f"{role}, received", str(symbols), f"{why} {op}\n{node}"
    if codec.file.receiver is not None:
        (port,) = codec.file.receiver.outputs
        checked = "" if codec.self_check is None else "; decoded from latents it is the same"
        yield "output image", port.tensor, f"output of 'receiver', {port.dtype}{checked}"


def _signatures(codec: Codec) -> Table:
    table = _table("signature", "key", "tensor", title="Signatures")
    sender, receiver = codec.file.sender, codec.file.receiver
    sides = {"sender in": sender.inputs, "sender out": sender.outputs}
    if receiver is not None:
        sides |= {"receiver in": receiver.inputs, "receiver out": receiver.outputs}
    for side, ports in sides.items():
        for port in ports:
            shape = ", shape unknown"
            if port.shape is not None:
                shape = f" ({', '.join('?' if n is None else str(n) for n in port.shape)})"
            table.add_row(side, plain(port.key), _lines(port.tensor, port.dtype + shape))
    if receiver is None:
        table.add_row("receiver", "", "none")
    return table


def _table(*columns: str, title: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _lines(name: str, why: str) -> RenderableType:
    """A name on a line of its own: it is copied."""
    parts = Text(printable(name), style="bold"), *map(plain, why.split("\n"))
    return Group(*(Text(overflow="fold").append_text(part) for part in parts))
