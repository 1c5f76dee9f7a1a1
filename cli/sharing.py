"""The commands that share a store: `latentset card`, `publish` and `pull`."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from latentset.cli.console import make_console
from latentset.cli.store import CacheBytesOption, CacheOption, shown_progress

if TYPE_CHECKING:
    from latentset.sharing.terms import License

LicenseOption = Annotated[
    str | None, typer.Option(help="Identifier of the licence: cc-by-4.0, mit, … (SPDX).")
]
LicenseNameOption = Annotated[
    str | None, typer.Option(help="Name of a licence that has no identifier.")
]
LicenseLinkOption = Annotated[str | None, typer.Option(help="Address of the licence's text.")]
LicenseFileOption = Annotated[
    Path | None, typer.Option(help="The licence's text; becomes LICENSE in the card.")
]


def card(
    store: Annotated[str, typer.Argument(help="A store's folder, HDF5 file or URL.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder of the card.", show_default="STORE.card, beside it"
        ),
    ] = None,
    license: LicenseOption = None,
    license_name: LicenseNameOption = None,
    license_link: LicenseLinkOption = None,
    license_file: LicenseFileOption = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="hf://…",
            help="Where the store will be published, for the card's commands.",
            show_default="STORE",
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Verify all of the store first; the card states it.")
    ] = False,
) -> None:
    """Describe a store: README.md, croissant.json, figures."""
    from rich.markup import escape

    from latentset.datasets.storage.location import Folder
    from latentset.datasets.store import open_store
    from latentset.sharing.card import write_card
    from latentset.sharing.publish import check_sound

    chosen = choose_license(license, license_name, license_link, license_file)
    opened = open_store(store)
    location = opened.location
    beside = location.beside(".card").path if isinstance(location, Folder) else None
    folder = output or beside or Path(f"{location.name}.card")
    with shown_progress() as report:
        if verify:
            check_sound(opened, report)
        written = write_card(
            opened, folder, license=chosen, verified=verify, address=address, report=report
        )
    make_console().print(
        f"{escape(str(folder))}: {', '.join(written)}", soft_wrap=True, highlight=False
    )


def publish(
    store: Annotated[str, typer.Argument(help="A store's folder.")],
    destination: Annotated[
        str, typer.Argument(help="hf://datasets/ORG/NAME, s3://…, gs://…, or a folder.")
    ],
    card: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A card of `latentset card`, perhaps edited.",
            show_default="a new one",
        ),
    ] = None,
    license: LicenseOption = None,
    license_name: LicenseNameOption = None,
    license_link: LicenseLinkOption = None,
    license_file: LicenseFileOption = None,
    public: Annotated[
        bool,
        typer.Option("--public", help="Hub: everybody may read a new repository."),
    ] = False,
    skip_verify: Annotated[
        bool, typer.Option("--skip-verify", help="Do not read and check the whole store first.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")
    ] = False,
) -> None:
    """Publish a store: its objects, its card, and last the manifest.

    What is there already is not written again: the same command resumes, on any machine. A new
    repository on the Hub is private. The token is that of `hf auth login`, or HF_TOKEN.
    """
    from latentset.datasets.store.summary import make_table
    from latentset.sharing.card import write_card
    from latentset.sharing.publish import (
        add_card,
        check_sound,
        plan_publication,
        refuse_foreign_readme,
    )
    from latentset.sharing.publish import publish as run
    from latentset.sharing.terms import require_license

    chosen = choose_license(license, license_name, license_link, license_file)
    if card is not None and chosen is not None:
        raise typer.BadParameter("--card FOLDER names a licence already: give one or the other")
    console = make_console()
    with shown_progress(in_bytes=True) as report:
        plan = plan_publication(store, destination, card, public=public, report=report)
    console.print(make_table("Plan", plan.rows()))
    # The card of a store that is there already may have been edited since: it is left as it is.
    writes_card = card is None and (bool(plan.manifest.missing) or chosen is not None)
    if writes_card:
        require_license(plan.store.header, chosen)
        refuse_foreign_readme(plan)
        if chosen is None:
            console.print("no licence is named: the card says unknown (--license NAME)")
    if dry_run:
        return
    with TemporaryDirectory() as made:
        with shown_progress() as report:
            if not skip_verify and (plan.missing_bytes or writes_card):
                check_sound(plan.store, report)
            if writes_card:
                write_card(
                    plan.store,
                    Path(made),
                    license=chosen,
                    verified=not skip_verify,
                    address=destination,
                    report=report,
                )
                plan = add_card(plan, Path(made), report)
        with shown_progress(in_bytes=True) as report:
            address = run(plan, report)
    console.print(
        f"published; to fetch it: latentset pull {address} STORE",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def pull(
    source: Annotated[
        str,
        typer.Argument(
            help="hf://datasets/ORG/NAME[@REVISION], https://…, s3://…, gs://… or a folder."
        ),
    ],
    store: Annotated[
        Path | None, typer.Argument(help="Folder to make. The same command resumes it.")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="Fetch the shards of this split only, into the cache; repeatable."),
    ] = None,
    class_: Annotated[
        list[str] | None,
        typer.Option("--class", help="The same of this class; repeatable."),
    ] = None,
    cache: CacheOption = None,
    cache_bytes: CacheBytesOption = None,
) -> None:
    """Fetch a store into a folder, or what is missing there.

    Each object is compared with the manifest as it comes. With --split or --class, the shards that
    hold those samples go into the cache from which train and evaluate read a store at this address.
    """
    from latentset.datasets.store.summary import format_bytes
    from latentset.sharing.pull import pull as run
    from latentset.sharing.pull import pull_selection

    if bool(split or class_) == (store is not None):
        raise typer.BadParameter(
            "give a folder to make, or else --split or --class (or both) for the cache",
            param_hint="STORE",
        )
    if store is None:
        from latentset.datasets.store.mirror import StoreCache, default_cache

        kept = StoreCache(cache or default_cache(), cache_bytes)
        with shown_progress(in_bytes=True) as report:
            found = pull_selection(
                source, kept, splits=split or (), classes=class_ or (), report=report
            )
        shards, part = found.store.header.layout.shards, found.bytes / (found.total_bytes or 1)
        _print(
            f"{found.samples:,} samples are in {found.shards:,} of {shards:,} shards: "
            f"{format_bytes(found.bytes)} of {format_bytes(found.total_bytes)} ({part:.1%}), which "
            f"are in the cache {kept.folder}, verified; other shards of {source} are fetched when "
            "they are read"
        )
        return
    if cache is not None or cache_bytes is not None:
        raise typer.BadParameter("--cache and --cache-bytes are for --split and --class")
    with shown_progress(in_bytes=True) as report:
        pulled = run(source, store, report)
    objects = pulled.manifest.objects if pulled.manifest else ()
    size = format_bytes(sum(item.bytes for item in objects))
    _print(f"{store}: verified: {len(objects):,} objects, {size}, each with the manifest's SHA-256")


def _print(text: str) -> None:

    from latentset.datasets.terminal import printable

    make_console().print(printable(text), markup=False, highlight=False, soft_wrap=True)


def choose_license(
    identifier: str | None, name: str | None, link: str | None, file: Path | None
) -> "License | None":
    """The licence that the options name; None where they name none."""
    from latentset.sharing.terms import make_license

    try:
        return make_license(identifier, name, link, file)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
