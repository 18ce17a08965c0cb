"""Images and results that other services hand in: a folder of requests, taken in here.

The services never call the catalogue, which answers people by their rights; they lay a
JSON file into a folder of the catalogue's own account. A request names a file below the
folder of images, which the sender put there first, and the run that found the result.
Taken in twice it is one image and one result, so a request is removed only after the
database has both: whatever is killed in between, the next look finishes it. A request
that cannot be taken in is set aside with the ending `.refused`.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session
from theatrum.catalog.tables import Result

from hub.home import Home
from services.catalog import store
from services.catalog.errors import BadNameError
from tile_server.errors import TileServerError
from tile_server.probing import Prober

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_MOST_BYTES = 64 * 2**20
Text = Annotated[str, Field(max_length=128)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HandedResult(_Strict):
    """A result as it is handed in."""

    run: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    app: Annotated[str, Field(max_length=64)]
    node: Text
    node_version: Annotated[str, Field(max_length=64)]
    node_digest: Text
    title: Annotated[str, Field(max_length=255)]
    numbers: dict[Text, float]
    # Any: GeoJSON, as open as the standard leaves it
    marks: dict[str, Any]
    created: datetime


class Handed(_Strict):
    """One request: an image below the folder of images, and what was found on it."""

    format: Literal[1]
    collection: Annotated[str, Field(max_length=64)]
    file: Annotated[str, Field(max_length=255)]
    """Below the folder of images, with `/` between folders."""
    title: Annotated[str, Field(min_length=1, max_length=255)]
    result: HandedResult


class RefusedRequest(Exception):
    """A request cannot be taken in; the message says why."""


@contextmanager
def watched(engine: Engine, home: Home, prober: Prober) -> Iterator[None]:
    """Take in what comes, in a thread, for the length of a `with`."""
    ended = threading.Event()

    def run() -> None:
        while True:
            try:
                take_in(engine, home, prober)
            except Exception:
                # The boundary of the thread: it is looked at again in a second.
                log.exception("the inbox cannot be read")
            if ended.wait(_LOOK_S):
                return

    thread = threading.Thread(target=run, name="inbox", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def take_in(engine: Engine, home: Home, prober: Prober) -> int:
    """Take in all requests that lie there now; how many were."""
    try:
        requests = sorted(home.inbox.glob("*.json"))
    except FileNotFoundError:
        return 0
    taken = 0
    for path in requests:
        if path.name.startswith("."):
            # Not under its own name yet: still being written.
            continue
        try:
            with Session(engine) as session:
                _take(session, home, _read(path), prober)
        except (RefusedRequest, BadNameError, TileServerError, OSError) as err:
            log.warning("a request is set aside: %s", type(err).__name__)
            path.replace(path.with_suffix(".refused"))
            continue
        path.unlink()
        taken += 1
    return taken


def _read(path: Path) -> Handed:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        text = file.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise RefusedRequest("the request is too long")
    try:
        return Handed.model_validate(json.loads(text))
    except (ValidationError, ValueError) as err:
        raise RefusedRequest("the request is not of the form") from err


def _take(session: Session, home: Home, handed: Handed, prober: Prober) -> None:
    """Register image and result, each unless it is there."""
    known = select(Result).where(Result.run == handed.result.run)
    if session.scalar(known) is not None:
        return
    images = home.images.resolve()
    file = (images / handed.file).resolve()
    if not file.is_relative_to(images):
        raise RefusedRequest("the file does not lie below the folder of images")
    collection = store.ensure_collection(session, handed.collection)
    image = store.add_image(
        session, collection, file, title=handed.title, prober=prober
    )
    session.add(Result(image_id=image.id, **handed.result.model_dump()))
    session.commit()
