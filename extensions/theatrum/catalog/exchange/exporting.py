"""Exports: what a query of images finds, as files that other programs read.

catalog.export(catalog.images.filter(modality="MR"), "mr.zip")            # a bundle
catalog.export(query, "originals.zip", what="originals")
catalog.export(query, "bids/", what="bids")                               # a folder
catalog.export(query, "slices.zip", what="slices", planes="ax", central=50)
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from theatrum.catalog.backend import Backend
from theatrum.catalog.errors import BadArray, BadQuery, BadRecord, near
from theatrum.catalog.exchange import bids, bundle, originals, slices
from theatrum.catalog.exchange.zips import Archive, Member
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.query.spec import Spec

KINDS: Final = ("originals", "bundle", "bids", "slices")
OPTIONS: Final = frozenset({"planes", "central", "every", "mm", "window", "quality"})
"""Words of an export of slices."""


# Any: words of an address, or values of a notebook
def members(
    backend: LocalBackend, spec: Spec, what: str, options: Mapping[str, Any]
) -> list[Member]:
    """The files of an export; raises BadRecord for one that there is not."""
    wrong = sorted(options.keys() - OPTIONS)
    if wrong or (options and what != "slices"):
        name = (wrong or sorted(options))[0]
        raise BadQuery(f"{what} take no {name!r}.{near(name, OPTIONS)}")
    match what:
        case "originals":
            return originals.members(backend, spec)
        case "bundle":
            return bundle.members(backend, spec)
        case "bids":
            return bids.members(backend, spec)
        case "slices":
            return slices.members(backend, spec, slices.chosen(options))
    raise BadRecord(f"one exports {', '.join(KINDS)}.{near(what, KINDS)}")


def tag_of(laid_out: Sequence[Member], said: Mapping[str, Any]) -> str:
    """What an export is known by: equal ones are equal bytes."""
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for one in laid_out:
        digest.update(f"\n{one.name}\0{one.size}\0{one.known}".encode())
    return digest.hexdigest()[:32]


def export(
    backend: Backend, spec: Spec, path: Path, what: str, options: Mapping[str, Any]
) -> Path:
    """Write an export: a zip where the path says so, else a folder.

    Raises
    ------
    BadArray
        Where there is something at the path.
    ExportFailed
        Where the service that is asked for it cannot make it.
    """
    if not isinstance(backend, LocalBackend):
        from theatrum.catalog.exchange.fetching import fetch
        from theatrum.catalog.following import followed
        from theatrum.catalog.remote import RemoteBackend

        assert isinstance(backend, RemoteBackend)  # noqa: S101  (there is no third)
        with followed("bytes") as tell:
            return fetch(backend, spec, path, what, options, tell)
    if path.exists():
        raise BadArray(f"{path.name} is there already: nothing is ever overwritten.")
    listed = members(backend, spec, what, options)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    try:
        if path.suffix == ".zip":
            with staging.open("xb") as file:
                for block in Archive(listed).stream():
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
        else:
            for member in listed:
                place = staging / member.name
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("xb") as file:
                    for block in member.blocks(0):
                        file.write(block)
        staging.rename(path)
    finally:
        if staging.is_dir():
            shutil.rmtree(staging, ignore_errors=True)
        else:
            staging.unlink(missing_ok=True)
    return path
