"""``croissant.json`` of a store: what it consists of, for programs (Croissant 1.1).

Specification: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html
"""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from latentset.datasets.store.digests import StoredObject
from latentset.datasets.store.samples import SAMPLES, samples_schema
from latentset.datasets.store.store import Store
from latentset.sharing.markdown import clean
from latentset.sharing.terms import License, source_terms

CROISSANT = "croissant.json"
"""Name of the file in a card's folder."""

_MAX_CLASSES = 50_000
"""Classes of a store are listed up to here: some 3 MB."""

_TERMS_OF_CROISSANT = (
    "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field",
    "fileProperty", "fileObject", "fileSet", "format", "includes", "isArray", "isLiveDataset",
    "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated",
    "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "description": {"@container": "@language"},
    **{term: f"cr:{term}" for term in _TERMS_OF_CROISSANT},
}

_COLUMNS = {
    "id": "Identifies the sample in the store",
    "path": "Of the image, relative to the source's root",
    "label": "Number of the class, from 0; -1: none",
    "split": "train, val, test, or empty",
    "height": "Of the image before resizing, pixels",
    "width": "Of the image before resizing, pixels",
    "latent_height": "Positions of the stored grid",
    "latent_width": "Positions of the stored grid",
    "first_row": "Row of the arrays at which the sample's positions start",
    "z_first_row": "The same of z_hat",
    "shard": "Number of the shard that holds the rows",
    "rate_bpp": "Bits per pixel",
    "source_bytes": "Size of the image's file",
    "source_sha256": "Digest of the image's file",
    "status": "ok, or why the sample is not in the arrays",
    "reason": "The same in words",
    "psnr_db": "Of the decoded image",
    "ms_ssim": "Of the decoded image",
}


def describe_store(
    store: Store,
    objects: tuple[StoredObject, ...],
    *,
    title: str,
    digest: str,
    license: License | None,
    url: str | None,
) -> bytes:
    """Write ``croissant.json``, to be put beside the objects of a store.

    Args:
        store: A complete store.
        objects: Its files, and those of its card.
        title: Its name for people.
        digest: The digest that names it.
        license: Of the store; None where none is known.
        url: Its web page, if it has one.
    """
    header = store.header
    source, made = header.source, header.provenance
    document: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": title,
        "description": (
            f"{header.noun.capitalize()} of images as a LatentSet store, format "
            f"{header.format_version}. SHA-256 of its manifest: {digest}."
        ),
        # The data of a digest never change; the build part tells two stores apart.
        "version": f"1.0.0+{digest[:12]}",
        "keywords": ["latents", "learned image compression", "image classification"],
        "license": _license_of(license),
    }
    if url:
        document["url"] = url
    if re.match(r"\d{4}-\d\d-\d\dT", made.created):
        document["dateCreated"] = clean(made.created, 40)
    terms = source_terms(header)
    document["prov:wasDerivedFrom"] = {
        "@id": terms.url if terms else f"urn:sha256:{source.listing_sha256}",
        "@type": "prov:Entity",  # a second sc:Dataset would be taken for this one
        "name": clean(source.name),
        "identifier": f"sha256:{source.listing_sha256}",
    }
    document["prov:wasGeneratedBy"] = _activity(store)
    document["distribution"] = list(_distribution(store, objects))
    if store.format == "zarr":
        document["recordSet"] = [_samples_records(samples_schema(header))]
    if 0 < len(source.classes) <= _MAX_CLASSES:
        document.setdefault("recordSet", []).append(_class_records(source.classes))
    return json.dumps(document, indent=1).encode() + b"\n"


def _license_of(license: License | None) -> str:
    if license is None:
        return "unknown"
    if license.id == "other":
        return license.link
    return license.link or license.id


def _activity(store: Store) -> dict[str, Any]:
    """What made the store, of its codec and resize rule."""
    header = store.header
    activity: dict[str, Any] = {
        "@type": "prov:Activity",
        "name": header.command,
        "description": f"Resize rule {clean(header.resize)}; "
        f"latentset {clean(header.provenance.latentset)}",
    }
    if header.codec is not None:
        activity["prov:used"] = {
            "@id": f"urn:sha256:{header.codec.sha256}",
            "@type": "prov:Entity",
            "name": clean(header.codec.name),
            "identifier": f"sha256:{header.codec.sha256}",
        }
    return activity


def _distribution(store: Store, objects: tuple[StoredObject, ...]) -> Iterator[dict[str, Any]]:
    """Each file, but the shards of each array as one set."""
    shards: dict[str, list[StoredObject]] = {name: [] for name in store.header.arrays}
    for item in objects:
        array, _, rest = item.path.partition("/")
        if array in shards and rest.startswith("c/"):
            shards[array].append(item)
            continue
        yield {
            "@type": "cr:FileObject",
            "@id": item.path,
            "name": item.path,
            "contentUrl": item.path,
            "contentSize": f"{item.bytes} B",
            "encodingFormat": _encoding_format(item.path),
            "sha256": item.sha256,
        }
    for array, items in shards.items():
        if not items:
            continue
        listing = "".join(f"{item.sha256}  {item.path}\n" for item in items)
        yield {
            "@type": "cr:FileSet",
            "@id": f"{array}-shards",
            "name": f"{array}-shards",
            "description": (
                f"{len(items)} shards of the Zarr array {array}. manifest.json has the SHA-256 of "
                "each; the one given here is of what sha256sum prints for them, sorted by path."
            ),
            "contentSize": f"{sum(item.bytes for item in items)} B",
            "encodingFormat": "application/vnd.zarr",
            "includes": f"{array}/c/**",
            "sha256": hashlib.sha256(listing.encode()).hexdigest(),
        }


def _encoding_format(path: str) -> str:
    match path.rpartition(".")[2]:
        case "json":
            return "application/json"
        case "parquet":
            return "application/x-parquet"
        case "png":
            return "image/png"
        case "h5" | "hdf5":
            return "application/x-hdf5"
        case _:
            return "text/plain"


def _samples_records(schema: pa.Schema) -> dict[str, Any]:
    """The samples table; mlcroissant can read it."""
    return {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "description": "One record a sample; docs/store-spec.md of LatentSet, section 5.",
        "key": {"@id": "samples/id"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"samples/{field.name}",
                "name": field.name,
                "description": _COLUMNS[field.name],
                "dataType": _data_type(field),
                "source": {
                    "fileObject": {"@id": SAMPLES},
                    "extract": {"column": field.name},
                },
            }
            for field in schema
        ],
    }


def _data_type(field: pa.Field) -> str | list[str]:
    kind = "sc:Integer"
    if pa.types.is_string(field.type):
        kind = "sc:Text"
    elif pa.types.is_floating(field.type):
        kind = "sc:Float"
    return [kind, "cr:Label"] if field.name == "label" else kind


def _class_records(classes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "description": "Names of the classes, by the number in samples/label.",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/label"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": "classes/label",
                "name": "label",
                "dataType": "sc:Integer",
            },
            {"@type": "cr:Field", "@id": "classes/name", "name": "name", "dataType": "sc:Text"},
        ],
        "data": [
            {"classes/label": label, "classes/name": clean(name)}
            for label, name in enumerate(classes)
        ],
    }
