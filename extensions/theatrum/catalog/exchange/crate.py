"""A bundle's description for everybody: RO-Crate 1.1, as JSON-LD."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

from theatrum.catalog.exchange.gathering import Rows, plain

NAME: Final = "ro-crate-metadata.json"
_CONTEXT: Final = "https://w3id.org/ro/crate/1.1/context"
_PROFILE: Final = "https://w3id.org/ro/crate/1.1"
_TYPES: Final[Mapping[str, str]] = {
    ".parquet": "application/vnd.apache.parquet",
    ".dcm": "application/dicom",
    ".nii": "application/x-nifti",
    ".gz": "application/gzip",
    ".sha256": "text/plain",
}


def people_of(rows: Rows) -> list[str]:
    """Who drew, wrote and asked for what is in a bundle."""
    said = {row["requested_by"] for row in rows.of("run")}
    said |= {row["author"] for row in rows.of("roi")}
    said |= {row["author"] for row in rows.of("annotation")}
    return sorted(one for one in said if one)


# Any: JSON-LD
def document(
    rows: Rows, files: Mapping[str, tuple[int, str]], described: Iterable[str]
) -> dict[str, Any]:
    """The crate of a bundle.

    Parameters
    ----------
    rows
        What it holds.
    files
        Size and SHA-256 by name.
    described
        Names of the files about the bundle itself, whose checksums stand elsewhere.
    """
    projects = rows.of("project")
    licences = sorted({row["licence"] for row in projects if row["licence"]})
    people = people_of(rows)
    titles = [row["title"] or row["name"] for row in projects]
    parts = [*described, *files]
    root: dict[str, Any] = {
        "@id": "./",
        "@type": "Dataset",
        "name": ", ".join(titles) or "images",
        "description": "\n".join(
            row["description"] for row in projects if row["description"]
        )
        or f"{len(rows.images)} images with all that is known of them",
        "datePublished": _newest(rows),
        "license": [{"@id": _licence(one)} for one in licences]
        or "No licence is named: ask the project's maintainers before reuse.",
        "author": [{"@id": _person(one)} for one in people],
        "hasPart": [{"@id": quote(name)} for name in parts],
    }
    dois = sorted({row["doi"] for row in projects if row["doi"]})
    if dois:
        root["identifier"] = dois if len(dois) > 1 else dois[0]
    graph: list[dict[str, Any]] = [
        {
            "@id": NAME,
            "@type": "CreativeWork",
            "about": {"@id": "./"},
            "conformsTo": {"@id": _PROFILE},
        },
        root,
        *({"@id": quote(one), "@type": "File", "name": one} for one in described),
        *(_file(name, *said) for name, said in files.items()),
        *({"@id": _person(one), "@type": "Person", "name": one} for one in people),
        *(
            {"@id": _licence(one), "@type": "CreativeWork", "name": one}
            for one in licences
        ),
    ]
    return {"@context": _CONTEXT, "@graph": graph}


def _file(name: str, size: int, sha256: str) -> dict[str, Any]:
    return {
        "@id": quote(name),
        "@type": "File",
        "name": name.rpartition("/")[2],
        "contentSize": str(size),
        "sha256": sha256,
        "encodingFormat": _type(name),
    }


def _type(name: str) -> str:
    suffix = "." + name.rpartition(".")[2].lower()
    return _TYPES.get(suffix) or (
        mimetypes.guess_type(name)[0] or "application/octet-stream"
    )


def _person(name: str) -> str:
    return f"#person-{quote(name)}"


def _licence(said: str) -> str:
    return said if said.startswith("https://") else f"#licence-{quote(said)}"


def _newest(rows: Rows) -> str:
    """The day of the newest image: the same rows are the same crate."""
    moments = [plain(row)["updated_at"] for row in rows.of("image")]
    return str(max(moments, default="1980-01-01"))[:10]
