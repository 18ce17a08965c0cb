"""What makes two runs the same: code, parameters, inputs, environment."""

from __future__ import annotations

import hashlib
import inspect
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from theatrum.catalog.engine.work import Given, Ref, Source
from theatrum.catalog.facts import digest_of
from theatrum.catalog.tables.images import DISCARDED
from theatrum.node import Node, Port


def def_hash(node: Node[..., Any]) -> str:
    """Return the digest of a node's code and interface."""
    return digest_of(
        {
            "name": node.name,
            "version": node.version,
            "code": node.code_digest,
            "in": [described(port) for port in node.inputs.values()],
            "out": [described(port) for port in node.outputs.values()],
        }
    )


def described(port: Port) -> dict[str, Any]:
    """Return a port as JSON: what the catalogue, a form and a flow know of it."""
    return {
        "name": port.name,
        "kind": port.kind,
        "many": port.many,
        "optional": port.optional,
        "title": port.title,
        "unit": port.measure.unit if port.measure else "",
        "constraints": [repr(one) for one in port.constraints],
    }


def input_hash(inputs: Mapping[str, Source | tuple[Source, ...]]) -> str:
    """Return the digest of what goes into a run, by port and place."""
    return digest_of(
        {
            port: [one.checksum for one in _listed(found)]
            for port, found in sorted(inputs.items())
        }
    )


def cache_key(code: str, params: str, inputs: str, environment: str) -> str:
    """Return what a run is found again by; all four are digests."""
    return digest_of([code, params, inputs, environment])


def given(value: Any) -> Given:
    """Return a plain value as a source, with a checksum of what it holds."""
    try:
        raw = pickle.dumps(value, protocol=5)
    except (pickle.PicklingError, TypeError, AttributeError):
        import cloudpickle

        raw = cloudpickle.dumps(value)
    return Given(value, hashlib.sha256(raw).hexdigest())


def ref_of_image(row: Mapping[str, Any]) -> Ref:
    """Return an image's row as a source."""
    path = str(row["path"])
    checksum = _checksum(row)
    return Ref(
        "image",
        str(row["id"]),
        path,
        int(row.get("scene") or 0),
        f"{checksum}:{row.get('scene') or 0}",
        str(row.get("name") or ""),
        attrs={
            **(row.get("attrs") or {}),
            **({"plane": row["plane"]} if row.get("plane") else {}),
        },
        gone=row.get("state") == DISCARDED,
    )


def _checksum(row: Mapping[str, Any]) -> str:
    """Return an image's checksum, of what lies at its path now.

    An original is not the catalogue's: somebody may write over it. Where its size or
    time is another than when it was taken in, its bytes are looked at again; of other
    bytes nothing that was computed before counts.
    """
    path, known = Path(str(row["path"])), str(row.get("checksum") or "")
    if not known:
        return checksum_of_place(path)
    told = str(row.get("version") or "")
    if row.get("kind", "original") != "original" or not told:
        return known
    from tile_server.versions import file_version  # with readers of slides

    try:
        if file_version(path) == told or _digest(path) == known:
            return known
    except OSError:
        return known  # it is not there: opening it says so, in its own words
    return checksum_of_place(path)


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file; of several nothing, which equals no checksum."""
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def checksum_of_place(path: Path) -> str:
    """Return a digest of a file's or folder's names, sizes and times.

    For what has no checksum of its contents yet: a file that was changed has another
    one, and reading gigabytes for it would cost more than most runs.
    """
    try:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        told = [
            (str(one.relative_to(path)), one.stat().st_size, one.stat().st_mtime_ns)
            for one in files
            if one.is_file()
        ]
    except OSError:
        told = []
    return digest_of([str(path), told])


def source_of(node: Node[..., Any]) -> str:
    """Return the text of a node that no package holds, else ""."""
    if node.address is not None:
        return ""
    told = getattr(node.function, "told_source", None)
    if told is not None:
        return str(told)
    try:
        return inspect.getsource(node.function)
    except (OSError, TypeError):
        return ""


def _listed(found: Source | tuple[Source, ...]) -> tuple[Source, ...]:
    return found if isinstance(found, tuple) else (found,)
