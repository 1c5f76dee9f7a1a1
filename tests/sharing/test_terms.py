"""Licences as they are given, and stores whose images have terms."""

from pathlib import Path

import pytest

from latentset.datasets.errors import StoreError
from latentset.datasets.store import Header, open_store
from latentset.sharing.terms import License, make_license, require_license, source_terms


def header_of(latents: Path, *, kind: str, classes: tuple[str, ...] = ()) -> Header:
    header = open_store(latents).header
    source = header.source.model_copy(update={"kind": kind, "classes": classes})
    return header.model_copy(update={"source": source})


def test_licences(tmp_path: Path) -> None:
    file, link = tmp_path / "terms.txt", "https://example.org/terms?v=1"
    file.write_text("Be kind.\n")
    given = {
        (None, None, None, None): None,
        ("CC-BY-4.0", None, None, None): License("cc-by-4.0"),
        ("mit", None, None, file): License("mit", link="LICENSE", text="Be kind.\n"),
        (None, "kind", link, None): License("other", "kind", link),
        (None, None, None, file): License("other", "see-license", "LICENSE", "Be kind.\n"),
        ("other", None, link, file): License("other", "see-license", link, "Be kind.\n"),
    }
    for options, expected in given.items():
        assert make_license(*options) == expected


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("cc by", None, None), "--license: expected an identifier such as cc-by-4.0"),
        (("unknown", None, None), "leave the option out"),
        (("mit", "kind", None), "--license-name is for a licence without an identifier"),
        (("other", None, None), "expected --license-link or --license-file"),
        ((None, "kind", None), "expected --license-link or --license-file"),
        ((None, "kind", "javascript:alert(1)"), "--license-link: expected https://"),
        ((None, "kind", "https://a.org/>x"), "--license-link: expected https://"),
        ((None, "kind", "https://a.org/\n- x"), "--license-link: expected https://"),
    ],
)
def test_options_that_do_not_fit(options: tuple[str | None, ...], text: str) -> None:
    identifier, name, link = options
    with pytest.raises(ValueError, match=text):
        make_license(identifier, name, link, None)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    empty, large, binary = (tmp_path / name for name in ("empty", "large", "binary"))
    empty.touch()
    large.write_bytes(b"x" * (1 << 20) + b"x")
    binary.write_bytes(b"\xff\xfe")
    for path in (empty, large, binary, tmp_path, tmp_path / "none"):
        with pytest.raises(StoreError, match=str(path)):
            make_license(None, None, None, path)


@pytest.mark.parametrize(
    ("kind", "classes", "collection"),
    [
        ("imagenet", (), "ImageNet"),
        ("imagefolder", ("n01440764", "n02102040"), "ImageNet"),
        ("minc2500", ("brick",), "MINC-2500"),
    ],
)
def test_terms_of_a_source(
    latents: Path, kind: str, classes: tuple[str, ...], collection: str
) -> None:
    header = header_of(latents, kind=kind, classes=classes)
    terms = source_terms(header)
    assert terms is not None
    assert terms.collection == collection
    assert terms.url in terms.prompt
    require_license(header, License("other", "terms", terms.url))
    with pytest.raises(StoreError, match=f"the images are {collection}'s"):
        require_license(header, None)


def test_other_sources_need_no_licence(latents: Path) -> None:
    for classes in ((), ("n01440764", "cat")):
        header = header_of(latents, kind="imagefolder", classes=classes)
        assert source_terms(header) is None
        require_license(header, None)
