"""Manifests of public collections: TCIA's `.tcia` and IDC's `.s5cmd`.

A TCIA manifest lists series; each is fetched as a zip from the archive's REST service,
by default the one on the host that the manifest names. An IDC manifest lists prefixes
of an S3 store (`cp s3://bucket/prefix/* .`). `THEATRUM_TCIA_SERVER` and
`THEATRUM_IDC_ENDPOINT` name others, such as a mirror in the house.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from theatrum.catalog.ingest.errors import HostileArchive, SourceFailed
from theatrum.catalog.ingest.fetched import Arriving
from theatrum.catalog.ingest.remote import fetch

_UID: Final = re.compile(r"[0-9.]{5,64}")
_COPY: Final = re.compile(r"^\s*cp\s+(?:-\S+\s+)*(s3://[^\s*]+)")
_MOST_BYTES: Final = 64 * 2**20
_TIMEOUT_S: Final = 300.0
_REST: Final = "/nbia-api/services/v1"
Tell = Callable[[int, int], None]


def series_of(manifest: str) -> tuple[str, list[str]]:
    """The address of the download server and the series of a TCIA manifest.

    Raises SourceFailed where there are none.
    """
    server, uids, listed = "", [], False
    for line in manifest.splitlines():
        text = line.strip()
        name, equals, value = text.partition("=")
        if equals and name == "downloadServerUrl":
            server = value
        elif equals and name == "ListOfSeriesToDownload":
            listed = True
        elif listed and text:
            if not _UID.fullmatch(text):
                raise SourceFailed("The manifest lists something that is no series.")
            uids.append(text)
    if not uids:
        raise SourceFailed("The manifest lists no series.")
    return server, list(dict.fromkeys(uids))


def prefixes_of(manifest: str) -> list[str]:
    """The addresses of an IDC manifest; raises SourceFailed where there are none."""
    found = [match[1] for line in manifest.splitlines() if (match := _COPY.match(line))]
    if not found:
        raise SourceFailed("The manifest has no lines such as `cp s3://bucket/x/* .`")
    return list(dict.fromkeys(found))


def fetch_manifest(
    path: Path,
    staging: Path,
    *,
    unpack: Callable[[Path, Path], None],
    tell: Tell = lambda _done, _all: None,
) -> str:
    """Fetch everything that a manifest lists into `staging`; its name for reports."""
    if path.stat().st_size > _MOST_BYTES:
        raise SourceFailed(f"{path.name} is too long for a manifest.")
    text = path.read_text("utf-8", "replace")
    if path.suffix.lower() == ".s5cmd":
        endpoint = os.environ.get("THEATRUM_IDC_ENDPOINT", "")
        prefixes = prefixes_of(text)
        for number, prefix in enumerate(prefixes):
            tell(number, len(prefixes))
            below = staging / f"{number:06d}"
            below.mkdir()
            fetch(prefix, below, endpoint=endpoint)
        tell(len(prefixes), len(prefixes))
        return path.name
    told, uids = series_of(text)
    server = os.environ.get("THEATRUM_TCIA_SERVER", "").rstrip("/") or _rest_of(told)
    with httpx.Client(timeout=_TIMEOUT_S, follow_redirects=False) as client:
        for number, uid in enumerate(uids):
            tell(number, len(uids))
            _series(client, server, uid, staging, unpack)
    tell(len(uids), len(uids))
    return path.name


def _rest_of(download: str) -> str:
    parts = urlsplit(download)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise SourceFailed(
            "The manifest names no server: set THEATRUM_TCIA_SERVER to its address."
        )
    return f"{parts.scheme}://{parts.netloc}{_REST}"


def _series(
    client: httpx.Client,
    server: str,
    uid: str,
    staging: Path,
    unpack: Callable[[Path, Path], None],
) -> None:
    packed = staging / f".{uid}"
    packed.mkdir()
    try:
        address = f"{server}/getImage"
        with client.stream("GET", address, params={"SeriesInstanceUID": uid}) as answer:
            answer.raise_for_status()
            archive = Arriving(packed).write("series.zip", answer.iter_bytes())
        target = staging / uid
        target.mkdir()
        unpack(archive, target)
    except (httpx.HTTPError, HostileArchive) as error:
        raise SourceFailed(
            f"The server does not give series {uid} ({type(error).__name__})."
        ) from error
    finally:
        shutil.rmtree(packed, ignore_errors=True)
