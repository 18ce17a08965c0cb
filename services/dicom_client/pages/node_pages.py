"""The DICOM nodes that structure sets are sent to.

GET  /nodes                  the list
POST /nodes                  one more, or another one in its place (`was`)
POST /nodes/{name}/delete
POST /nodes/{name}/echo      C-ECHO; answers with a line for the list
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from services.dicom_client import nodes as dicom_nodes
from services.dicom_client.errors import BadRequest, NoSuchThing
from services.dicom_client.pages.forms import Fields
from services.dicom_client.pages.rendering import Here, Pages, sentence
from services.dicom_client.pages.rights import AdministratorsForm, Chooser, Member
from services.dicom_client.targets import check_nodes, node_of


def add_routes(router: APIRouter) -> None:
    router.add_api_route("/nodes", nodes, methods=["GET"])
    router.add_api_route("/nodes", put, methods=["POST"])
    router.add_api_route("/nodes/{number}/delete", delete, methods=["POST"])
    router.add_api_route("/nodes/{number}/echo", echo, methods=["POST"])


def nodes(here: Here, member: Chooser, edit: int = -1) -> Response:
    """The nodes; `edit` is the place of the one whose values are in the form."""
    listed = here.service.keeper.node_list()
    chosen = listed[edit] if 0 <= edit < len(listed) else {}
    return _page(here, member, chosen, str(chosen.get("name", "")), "")


def _page(
    here: Pages, member: Member, chosen: dict[str, Any], was: str, problem: str
) -> Response:
    scp = here.service.base.scp
    return here.page(
        member,
        "nodes.html",
        status=422 if problem else 200,
        tab="nodes",
        nodes=list(enumerate(here.service.keeper.node_list())),
        chosen=chosen,
        was=was,
        scp=scp,
        problem=problem,
    )


def put(here: Here, sent: AdministratorsForm) -> Response:
    """Keep a node; the others stay as they are."""
    was = sent.fields.text("was", 64)
    kept = here.service.keeper.node_list()
    record: dict[str, Any] = sent.fields.plain("_xsrf", "was")
    try:
        record = _record(sent.fields)
        others = [one for one in kept if one["name"] != was]
        listed = sorted([*others, record], key=lambda one: int(one.get("priority", 0)))
        check_nodes(listed)
    except BadRequest as err:
        return _page(here, sent.member, record, was, sentence(err))
    here.service.keeper.put_nodes(listed, sent.member.name)
    return here.to("nodes")


def _record(fields: Fields) -> dict[str, Any]:
    """A node's record, as `targets` reads it."""
    record: dict[str, Any] = {
        name: fields.text(name, 255)
        for name in ("name", "host", "ae_title", "calling_ae_title", "target")
        if fields.text(name)
    }
    for name in ("port", "priority"):
        text = fields.text(name, 8) or "0"
        if not text.lstrip("-").isdigit():
            raise BadRequest(f"{name}: write a whole number")
        record[name] = int(text)
    for name in ("connect_s", "timeout_s"):
        text = fields.text(name, 8)
        if text:
            record[name] = _seconds(name, text)
    record["required"] = bool(fields.text("required"))
    record["can_find"] = bool(fields.text("can_find"))
    if fields.text("tls"):
        record["tls"] = {
            **{
                name: fields.text(f"tls_{name}", 1024)
                for name in ("ca", "certificate", "key")
                if fields.text(f"tls_{name}")
            },
            "hostname": bool(fields.text("tls_hostname")),
        }
    return record


def _seconds(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as err:
        raise BadRequest(f"{name}: write a number of seconds") from err


def _at(here: Pages, number: int) -> dict[str, Any]:
    listed = here.service.keeper.node_list()
    if not 0 <= number < len(listed):
        raise NoSuchThing("there is no such node")
    return listed[number]


def delete(here: Here, sent: AdministratorsForm, number: int) -> Response:
    """Take a node out of the list."""
    name = _at(here, number)["name"]
    if sent.fields.text("name", 64) != name:
        raise BadRequest("the list changed meanwhile: look at it again")
    kept = [one for one in here.service.keeper.node_list() if one["name"] != name]
    here.service.keeper.put_nodes(kept, sent.member.name)
    return here.to("nodes")


def echo(here: Here, sent: AdministratorsForm, number: int) -> Response:
    """Ask a node whether it is there."""
    answer = dicom_nodes.echo(node_of(_at(here, number)))
    return HTMLResponse(here.text("echo.html", sent.member, answer=answer))
