"""The settings: those that can be changed here, the others to look at, and secrets.

GET  /settings
POST /settings          the changeable ones
POST /settings/tokens   the server's tokens; written, never shown
POST /settings/secrets  a token or password of a DICOMweb server; the same
POST /settings/server   whether the server answers
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel

from services.dicom_client.draw_server import Tokens
from services.dicom_client.errors import BadRequest, DicomClientError, NoSuchThing
from services.dicom_client.keeping import SETTINGS, TOKENS
from services.dicom_client.pages.rendering import Here, Pages, sentence
from services.dicom_client.pages.rights import (
    Administrator,
    AdministratorsForm,
    Member,
)
from services.dicom_client.settings import CHANGEABLE, SECRETS, BadSettings, changed

# Tables of which each setting is a line of the form.
_TABLES = ("server", "dicomweb", "stow")
_CHOICES = {
    "server.refresh": ("auto", "v1", "v2"),
    "on_unknown_upload": ("ask", "again"),
    "on_unknown_delivery": ("ask", "again"),
}


@dataclass(frozen=True)
class Line:
    """One setting, with its text for a form."""

    name: str
    text: str
    meaning: str
    changed: bool = False
    choices: tuple[str, ...] = ()
    is_yes_or_no: bool = False


def add_routes(router: APIRouter) -> None:
    router.add_api_route("/settings", settings, methods=["GET"])
    router.add_api_route("/settings", change, methods=["POST"])
    router.add_api_route("/settings/tokens", put_tokens, methods=["POST"])
    router.add_api_route("/settings/secrets", put_secret, methods=["POST"])
    router.add_api_route("/settings/server", ask_server, methods=["POST"])


def settings(here: Here, member: Administrator, done: str = "") -> Response:
    said = {
        "settings": "The settings are kept.",
        "tokens": "The tokens are kept.",
        "secret": "The secret is kept.",
        "no-secret": "The secret is forgotten.",
    }
    return _page(here, member, said=said.get(done, ""))


def _page(
    here: Pages,
    member: Member,
    *,
    said: str = "",
    problem: str = "",
    given: dict[str, str] | None = None,
) -> Response:
    keeper = here.service.keeper
    now = keeper.settings(here.service.base)
    kept = set(keeper.value(SETTINGS) or {})
    lines = list(_changeable(now, kept))
    if given is not None:
        lines = [
            Line(
                one.name,
                given.get(one.name, ""),
                one.meaning,
                one.changed,
                one.choices,
                one.is_yes_or_no,
            )
            for one in lines
        ]
    return here.page(
        member,
        "settings.html",
        status=422 if problem else 200,
        tab="settings",
        lines=lines,
        fixed=list(_fixed(now, "")),
        set_since=keeper.secrets().get(TOKENS),
        secrets=[
            (name, meaning, keeper.secrets().get(name))
            for name, meaning in SECRETS.items()
        ],
        said=said,
        problem=problem,
    )


def _changeable(now: BaseModel, kept: set[str]) -> Iterator[Line]:
    for name in sorted(CHANGEABLE - set(_TABLES)):
        yield _line(now, name, name, name in kept)
    for table in _TABLES:
        inner: BaseModel = getattr(now, table)
        for name in type(inner).model_fields:
            yield _line(inner, name, f"{table}.{name}", table in kept)


def _line(table: BaseModel, name: str, shown: str, is_changed: bool) -> Line:
    value = getattr(table, name)
    about = type(table).model_fields[name].description or ""
    return Line(
        shown,
        text_of(value),
        " ".join(about.replace("`", "").split()),
        is_changed,
        _CHOICES.get(shown, ()),
        isinstance(value, bool),
    )


def text_of(value: Any) -> str:  # Any: of any setting
    """A value as people write it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return json.dumps(value) if value else ""
    if isinstance(value, tuple | list):
        return ", ".join(text_of(one) for one in value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _fixed(table: BaseModel, before: str) -> Iterator[Line]:
    """What only theatrum.toml changes."""
    for name, field in type(table).model_fields.items():
        value = getattr(table, name)
        if not before and name in CHANGEABLE:
            continue
        if isinstance(value, BaseModel):
            yield from _fixed(value, f"{before}{name}.")
            continue
        # Canaries are names of the hospital: how many there are is enough.
        shown = f"{len(value)} texts" if name == "canaries" else text_of(value)
        about = " ".join((field.description or "").replace("`", "").split())
        yield Line(f"{before}{name}", shown, about)


def change(here: Here, sent: AdministratorsForm) -> Response:
    """Keep what differs from theatrum.toml; the rest follows it again."""
    service = here.service
    given = sent.fields.plain("_xsrf")
    try:
        values = _values(service.base, given)
        chosen = changed(service.base, values)
        # What is as in the file is not kept, so that the file's next value counts.
        wanted = {
            name: values[name]
            if getattr(chosen, name) != getattr(service.base, name)
            else None
            for name in values
        }
        service.keeper.change_settings(service.base, wanted, sent.member.name)
    except (BadSettings, BadRequest) as err:
        return _page(here, sent.member, problem=sentence(err), given=given)
    return here.to("settings?done=settings")


def _values(base: BaseModel, given: dict[str, str]) -> dict[str, Any]:
    """The texts as JSON values: pydantic reads numbers and days from text."""
    values: dict[str, Any] = {
        name: _value(base, name, given.get(name, "").strip(), name)
        for name in CHANGEABLE - set(_TABLES)
    }
    for table in _TABLES:
        inner: BaseModel = getattr(base, table)
        values[table] = {
            name: _value(
                inner, name, given.get(f"{table}.{name}", "").strip(), f"{table}.{name}"
            )
            for name in type(inner).model_fields
        }
    return values


def _value(table: BaseModel, field: str, text: str, name: str) -> Any:
    """A text as JSON; Any: of any setting."""
    like = getattr(table, field)
    if isinstance(like, bool):
        return text == "yes"
    if isinstance(like, tuple):
        return [part.strip() for part in text.split(",") if part.strip()]
    if isinstance(like, dict):
        try:
            said = json.loads(text) if text else {}
        except ValueError as err:
            raise BadRequest(f"{name}: write an object as JSON, or nothing") from err
        return said
    if type(table).model_fields[field].default is None:
        return text or None
    return text


def put_tokens(here: Here, sent: AdministratorsForm) -> Response:
    """Keep the server's tokens; series that waited for them go on."""
    fields = sent.fields
    access = fields.text("access", 8192)
    if not access:
        return _page(here, sent.member, problem="Paste the access token.")
    try:
        expires = _moment(fields.text("expires", 40))
    except ValueError:
        return _page(
            here, sent.member, problem="Write the end as 2026-12-31T23:59 (UTC)."
        )
    tokens = Tokens(access, fields.text("refresh", 8192) or None, expires)
    here.actions.put_tokens(tokens, sent.member.name)
    return here.to("settings?done=tokens")


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    told = datetime.fromisoformat(text)
    return told if told.tzinfo else told.replace(tzinfo=UTC)


def put_secret(here: Here, sent: AdministratorsForm) -> Response:
    """Keep a secret of a DICOMweb server, or forget it."""
    name = sent.fields.text("name", 64)
    if name not in SECRETS:
        raise NoSuchThing("there is no such secret")
    if sent.fields.text("forget"):
        here.service.keeper.drop_secret(name, sent.member.name)
        return here.to("settings?done=no-secret#secrets")
    text = sent.fields.text("secret", 8192)
    if not text:
        return _page(here, sent.member, problem="Paste the secret first.")
    here.service.keeper.put_secret(name, text, sent.member.name)
    return here.to("settings?done=secret#secrets")


def ask_server(here: Here, sent: AdministratorsForm) -> Response:
    """Ask the server whether it takes packages."""
    try:
        healthy = here.service.servers.server().health()
    except DicomClientError as err:
        return _page(here, sent.member, problem=sentence(err))
    if not healthy:
        return _page(here, sent.member, problem="The server says that it is not well.")
    return _page(here, sent.member, said="The server answers and takes packages.")
