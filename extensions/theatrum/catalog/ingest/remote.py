"""Files of an object store or a web server, by fsspec: `s3://bucket/prefix`, `https://`.

A prefix stands for everything below it. Credentials and the address of a store that is
not Amazon's come from the environment, never out of the address: `AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT_URL`; without credentials it is asked as a guest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import fsspec

from theatrum.catalog.ingest.errors import SourceFailed
from theatrum.catalog.ingest.fetched import Arriving, shown_address

SCHEMES: Final = frozenset({"s3", "gs", "gcs", "az", "abfs", "http", "https", "memory"})
_BLOCK: Final = 4 * 2**20
Tell = Callable[[int, int], None]


def fetch(
    uri: str,
    staging: Path,
    *,
    tell: Tell = lambda _done, _all: None,
    endpoint: str = "",
) -> str:
    """Bring everything below an address into `staging`; the address for reports.

    `endpoint` is that of an S3-like store. Raises SourceFailed.
    """
    parts = urlsplit(uri)
    if parts.scheme not in SCHEMES:
        raise SourceFailed(
            f"{parts.scheme}:// is no source: use {', '.join(sorted(SCHEMES))}."
        )
    if parts.password is not None:
        raise SourceFailed("Put credentials into the environment, not the address.")
    label = shown_address(uri)
    try:
        system, place = _system(uri, parts.scheme, endpoint)
        names = _below(system, place)
        if not names:
            raise SourceFailed(f"There is nothing at {label}.")
        arriving = Arriving(staging)
        for number, name in enumerate(names):
            tell(number, len(names))
            relative = name[len(place) :].lstrip("/") if name != place else ""
            arriving.write(
                relative or Path(urlsplit(name).path).name, _blocks(system, name)
            )
        tell(len(names), len(names))
    except SourceFailed:
        raise
    except Exception as error:
        # The boundary to libraries of many stores, each with its own errors.
        raise SourceFailed(
            f"{label} does not give its files ({type(error).__name__}): look at the "
            "address, and at the credentials in the environment."
        ) from error
    return label


def _system(uri: str, scheme: str, endpoint: str) -> tuple[Any, str]:
    options: dict[str, Any] = {}
    if scheme == "s3":
        address = endpoint or os.environ.get("AWS_ENDPOINT_URL", "")
        if address:
            options["endpoint_url"] = address
        known = "AWS_ACCESS_KEY_ID" in os.environ or "AWS_PROFILE" in os.environ
        options["anon"] = not known
        # What another process put there since is to be seen.
        options["use_listings_cache"] = False
    system, place = fsspec.core.url_to_fs(uri, **options)
    return system, str(place)


def _below(system: Any, place: str) -> list[str]:
    if "*" in place:
        return sorted(str(one) for one in system.glob(place) if not system.isdir(one))
    if urlsplit(place).scheme in ("http", "https"):
        return [place]  # what a web server lists is for people
    if system.isfile(place):
        return [place]
    return sorted(str(one) for one in system.find(place) if not str(one).endswith("/"))


def _blocks(system: Any, name: str) -> Iterator[bytes]:
    with system.open(name, "rb") as file:
        while block := file.read(_BLOCK):
            yield block
