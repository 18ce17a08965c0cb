"""The stored results: ids that rise over all applications, versions that must fit.

Nobody but the viewer removes a result. A version is compared, never computed by a
client: it is counted here, and that is nobody's business.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from .rules import items_of
from .slides import Json
from .versions import ITEM_LISTS, Version

FIRST_ID = 4711


def _copied(body: Json) -> Json:
    """A copy that shares nothing; by far quicker than `deepcopy` for many points."""
    copied: Json = json.loads(json.dumps(body))
    return copied


class NoSuchResult(LookupError):
    """No result of the application has this id."""


class StaleVersion(ValueError):
    """The result was changed since the version that the update names."""


@dataclass
class _Held:
    application_id: str
    body: Json
    attachments: dict[str, bytes] = field(default_factory=dict)
    history: list[Json] = field(default_factory=list)


class Results:
    """All results of a server; any thread may use it.

    `server_version` decides the shape in which a primitive leaves: before 1.6 a single
    item stands alone, as old servers have it.
    """

    def __init__(self, server_version: Version) -> None:
        self._lock = threading.RLock()
        self._held: dict[int, _Held] = {}
        self._removed: dict[int, Json] = {}
        self._next_id = FIRST_ID
        self._server_version = server_version

    def create(self, application_id: str, body: Json) -> Json:
        with self._lock:
            result_id, self._next_id = self._next_id, self._next_id + 1
            stored = {"id": result_id, "versionId": "1", **_copied(body)}
            stored["attachments"] = stored.get("attachments") or []
            self._held[result_id] = _Held(application_id, stored, history=[stored])
            return self._shaped(stored)

    def get(self, application_id: str, result_id: int) -> Json:
        with self._lock:
            return self._shaped(self._find(application_id, result_id).body)

    def of_slide(self, application_id: str, slide_id: str) -> list[Json]:
        """The application's results on a slide, oldest first."""
        with self._lock:
            return [
                self._shaped(one.body)
                for one in self._held.values()
                if one.application_id == application_id
                and one.body["slideId"] == slide_id
            ]

    def update(self, application_id: str, result_id: int, body: Json) -> Json:
        """Replace the whole result; raises NoSuchResult or StaleVersion."""
        with self._lock:
            held = self._find(application_id, result_id)
            if body.get("versionId") != held.body["versionId"]:
                raise StaleVersion(
                    f"result {result_id} is at another version than"
                    f" {body.get('versionId')!r}"
                )
            return self._replace(held, body)

    def edit(self, result_id: int, change: Callable[[Json], None]) -> Json:
        """Change a result as a user would behind the application's back."""
        with self._lock:
            held = self._held[result_id]
            body = _copied(held.body)
            change(body)
            return self._replace(held, body)

    def remove(self, result_id: int) -> Json:
        """Take a result away, as the viewer does when its user deletes it."""
        with self._lock:
            removed = self._held.pop(result_id).body
            self._removed[result_id] = removed
            return self._shaped(removed)

    def current(self, result_id: int) -> Json | None:
        """The result, of whichever application, or None where it is gone."""
        with self._lock:
            held = self._held.get(result_id)
            return None if held is None else self._shaped(held.body)

    def all(self) -> list[Json]:
        """Every result that is there, oldest first."""
        with self._lock:
            return [self._shaped(one.body) for one in self._held.values()]

    def history(self, result_id: int) -> list[Json]:
        """Every version that a result ever had, first to last."""
        with self._lock:
            return [self._shaped(one) for one in self._held[result_id].history]

    def application_of(self, result_id: int) -> str:
        with self._lock:
            return self._held[result_id].application_id

    def attachment(self, application_id: str, result_id: int, name: str) -> bytes:
        """Raises NoSuchResult where there are no such bytes."""
        with self._lock:
            held = self._find(application_id, result_id)
            if name not in held.attachments:
                raise NoSuchResult(f"result {result_id} has no attachment {name!r}")
            return held.attachments[name]

    def attach(
        self, application_id: str, result_id: int, name: str, content: bytes
    ) -> None:
        """Store the bytes of an attachment that the result announced."""
        with self._lock:
            held = self._find(application_id, result_id)
            for entry in held.body["attachments"]:
                if entry["name"] == name:
                    held.attachments[name] = content
                    entry["state"] = "stored"
                    return
            raise NoSuchResult(f"result {result_id} announces no attachment {name!r}")

    def _replace(self, held: _Held, body: Json) -> Json:
        version = str(int(held.body["versionId"]) + 1)
        kept = {"id": held.body["id"], "versionId": version}
        held.body = {**_copied(body), **kept}
        held.body["attachments"] = held.body.get("attachments") or []
        held.history.append(held.body)
        return self._shaped(held.body)

    def _find(self, application_id: str, result_id: int) -> _Held:
        held = self._held.get(result_id)
        if held is None or held.application_id != application_id:
            raise NoSuchResult(f"there is no result {result_id}")
        return held

    def _shaped(self, stored: Json) -> Json:
        told = _copied(stored)
        shown = told["data"]["result"]
        if shown["type"] == "primitive" and self._server_version < ITEM_LISTS:
            items = items_of(shown["content"])
            if len(items) == 1:
                shown["content"] = items[0]
        return told
