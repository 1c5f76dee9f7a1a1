"""Under which terms a store may be shared: its licence, and what its images' owners ask for."""

import re
import stat
from dataclasses import dataclass
from pathlib import Path

from latentset.datasets.errors import StoreError
from latentset.datasets.storage.access import reading
from latentset.datasets.store.header import Header
from latentset.sharing.markdown import clean

LICENSE_FILE = "LICENSE"
"""Name of the licence's text in a card's folder."""

_MAX_LICENSE_BYTES = 1 << 20

_WNID = re.compile(r"n\d{8}")
"""ImageNet's class names, numbers of WordNet."""


@dataclass(frozen=True)
class License:
    """A licence as the Hub names it (https://huggingface.co/docs/hub/repositories-licenses)."""

    id: str
    """SPDX's identifier in lower case, or ``other``."""
    name: str = ""
    link: str = ""
    """Address of its text, or LICENSE_FILE."""
    text: str = ""
    """The text itself, where it was given."""


def make_license(
    identifier: str | None, name: str | None, link: str | None, file: Path | None
) -> License | None:
    """Check what was given of a licence; None if nothing was.

    Raises:
        ValueError: The options do not fit each other; the message names them.
        StoreError: The file cannot be read, or is no text of at most 1 MiB.
    """
    if (identifier, name, link, file) == (None, None, None, None):
        return None
    identifier = (identifier or "other").lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,63}", identifier):
        raise ValueError(
            f"--license: expected an identifier such as cc-by-4.0 or mit, got {identifier!r}"
        )
    if identifier == "unknown":
        raise ValueError("--license unknown names none: leave the option out")
    if link is not None and not re.fullmatch(r"https?://[a-zA-Z0-9.-]+[!#-;=?-~]*", link):
        raise ValueError(f"--license-link: expected https://…, got {link!r}")
    if identifier != "other":
        if name is not None:
            raise ValueError(
                f"--license-name is for a licence without an identifier; leave it or "
                f"--license {identifier} out"
            )
    elif link is None and file is None:
        raise ValueError("expected --license-link or --license-file: the text of another licence")
    text = _read_text(file) if file is not None else ""
    name = clean(name or "", 100) or ("see-license" if identifier == "other" else "")
    return License(identifier, name, link or (LICENSE_FILE if text else ""), text)


def _read_text(path: Path) -> str:
    with reading(path):
        if not stat.S_ISREG(path.stat().st_mode):
            raise StoreError(f"--license-file {path}: expected a file")
        with path.open("rb") as file:
            content = file.read(_MAX_LICENSE_BYTES + 1)
    if not content.strip() or len(content) > _MAX_LICENSE_BYTES:
        raise StoreError(
            f"--license-file {path}: expected 1 byte to 1 MiB of text, got {path.stat().st_size}"
        )
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise StoreError(f"--license-file {path}: expected text in UTF-8: {error}") from error


@dataclass(frozen=True)
class SourceTerms:
    """Terms of a collection whose images may not be passed on freely."""

    collection: str
    url: str
    """Where its owners publish the terms."""
    hub_name: str
    """As ``source_datasets`` of cards on the Hub name it."""
    summary: str
    """Markdown."""

    @property
    def prompt(self) -> str:
        """What who wants the store must accept on the Hub."""
        return (
            f"These data were computed from the images of {self.collection}, can be turned back "
            f"into them approximately, and are under the same terms.\n\n{self.summary}\n\n"
            f"The terms of {self.url} count, not this summary. By asking for access you agree to "
            "them."
        )


_IMAGENET = SourceTerms(
    collection="ImageNet",
    url="https://www.image-net.org/download.php",
    hub_name="imagenet-1k",
    summary=(
        "ImageNet's terms of access, in short:\n\n"
        "1. Use is for non-commercial research and educational purposes only.\n"
        "2. Princeton University and Stanford University give no warranties, not of "
        "non-infringement nor of fitness for a particular purpose.\n"
        "3. You take full responsibility for your use, copies of copyrighted images included, and "
        "defend and indemnify both universities against claims that arise from it.\n"
        "4. You may give access to research associates and colleagues who first agree to these "
        "terms.\n"
        "5. Both universities may end your access at any time.\n"
        "6. If a for-profit, commercial entity employs you, it is bound by these terms too.\n"
        "7. The law of the State of New Jersey applies."
    ),
)

_MINC = SourceTerms(
    collection="MINC-2500",
    url="http://opensurfaces.cs.cornell.edu/publications/minc/",
    hub_name="other-minc-2500",
    summary=(
        "The images come from Flickr and Houzz and belong to those who made them, whose rights the "
        "authors of MINC (Bell, Upchurch, Snavely and Bala, CVPR 2015) cannot give away. Use them "
        "only as their owners and the authors allow."
    ),
)


def has_license(readme: Path) -> bool:
    """Whether a card's front matter names a licence, and has a prompt to agree to."""
    from huggingface_hub import metadata_load

    try:
        fields = metadata_load(readme) or {}
    except ValueError as error:
        raise StoreError(f"{readme}: its front matter is not valid: {error}") from error
    return fields.get("license", "unknown") != "unknown" and "extra_gated_prompt" in fields


def source_terms(header: Header) -> SourceTerms | None:
    """The terms of a store's images; None where this package knows of none.

    ImageNet is known by its layout or by its class names, parts of it too.
    """
    source = header.source
    if source.kind == "minc2500":
        return _MINC
    if source.kind == "imagenet" or (source.classes and all(map(_WNID.fullmatch, source.classes))):
        return _IMAGENET
    return None


def require_license(header: Header, given: License | None) -> None:
    """Raise a StoreError where a store's images have terms, and no licence was named."""
    terms = source_terms(header)
    if terms is not None and given is None:
        raise StoreError(
            f"the images are {terms.collection}'s, which come with terms ({terms.url}): expected "
            "the licence of the store; name it with --license, or --license-name with "
            "--license-link or --license-file"
        )
