"""Fetch OpenSlide's freely licensed demonstration slide, checked by its digest."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import Progress

# CMU-1.svs of OpenSlide's test data (CC0-1.0), 177 552 579 bytes; the digest is the
# one that its index.json states.
ADDRESS = "https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/CMU-1.svs"
SHA256 = "00a3d54482cd707abf254fe69dccc8d06b8ff757a1663f1290c23418c480eb30"


class FetchError(Exception):
    """The slide could not be fetched; nothing was kept."""


def fetch(
    target: Path, console: Console, *, address: str = ADDRESS, sha256: str = SHA256
) -> None:
    """Download the slide to `target`, unless it is there.

    Raises
    ------
    FetchError
        Without a connection, or where what came is not the slide.
    """
    if target.exists():
        return
    staging = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        digest = _download(address, staging, console)
        if digest != sha256:
            raise FetchError(
                f"What came from {address} is not the expected slide (its SHA-256 is "
                f"{digest}); nothing was kept. Try again later."
            )
        staging.replace(target)
    except httpx.HTTPError as err:
        raise FetchError(
            f"The demonstration slide could not be fetched: {address} cannot be "
            "reached from here. Without internet, use the slide that is built at the "
            "first start, or add one of your own with `theatrum images add`."
        ) from err
    finally:
        staging.unlink(missing_ok=True)


def _download(address: str, staging: Path, console: Console) -> str:
    """Store what `address` answers, and return its SHA-256."""
    digest = hashlib.sha256()
    with (
        httpx.stream("GET", address, follow_redirects=True, timeout=30.0) as answer,
        staging.open("xb") as file,
        Progress(console=console) as bar,
    ):
        answer.raise_for_status()
        size = int(answer.headers.get("Content-Length", 0)) or None
        task = bar.add_task("Fetching CMU-1.svs", total=size)
        for part in answer.iter_bytes():
            digest.update(part)
            file.write(part)
            bar.update(task, advance=len(part))
    return digest.hexdigest()
