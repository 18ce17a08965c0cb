"""What each route answers: one function a route, from a call to a reply.

A call is a request whose route, token and declared version have been judged already.
A refusal is raised, with its status and a text; what the text says is not part of the
protocol, for the real server's is not public.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from . import rules
from .deepzoom import parse_tile
from .pictures import encode
from .results import NoSuchResult, StaleVersion
from .schemas import schema_problem
from .slides import MIME_TYPES, Json, Slide, case_entry, slide_info
from .versions import Version, version_text
from .wire import Reply, Request

if TYPE_CHECKING:
    from .server import PathologyServer


class Refused(Exception):
    """The server answers with this status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Call:
    """A request on its route.

    Attributes
    ----------
    names
        What stands in the path.
    query
        The first value of each parameter.
    declared
        The version of the API that the client says it codes against.
    """

    request: Request
    route: str
    names: dict[str, str]
    query: dict[str, str]
    declared: Version

    @property
    def application_id(self) -> str:
        return self.names["applicationId"]

    @property
    def result_id(self) -> int:
        return int(self.names["resultId"])

    def says(self, name: str) -> bool:
        """A boolean of the query, in any case of letters."""
        text = self.query.get(name, "false").lower()
        if text not in {"true", "false"}:
            raise Refused(400, f"{name} is true or false")
        return text == "true"


Handler = Callable[["PathologyServer", Call], Reply]


def json_reply(body: object, status: int = 200) -> Reply:
    text = json.dumps(body, ensure_ascii=False, allow_nan=False)
    return Reply(status, {"Content-Type": "application/json"}, text.encode())


def info(server: PathologyServer, call: Call) -> Reply:
    return json_reply(
        {
            "apiVersion": version_text(server.api_version),
            "softwareVersion": server.software_version,
        }
    )


def launchdata(server: PathologyServer, call: Call) -> Reply:
    if call.query.get("sessionToken") not in server.sessions:
        raise Refused(401, "no such session")
    application_id = call.query.get("appId", "")
    if not server.knows(application_id):
        raise Refused(404, "no such application")
    slides = server.case(call.query.get("requestId", ""), None)
    blocks: dict[str, list[Json]] = {}
    for slide in slides:
        told = {"id": slide.slide_id, "description": slide.staining}
        blocks.setdefault(slide.block, []).append(told)
    return json_reply(
        {
            "callbackInfo": server.callback_info(application_id),
            "blocks": [{"name": name, "slides": held} for name, held in blocks.items()],
        }
    )


def token(server: PathologyServer, call: Call) -> Reply:
    user = _basic_user(server, call.request.headers.get("authorization", ""))
    if user not in server.token_users:
        raise Refused(403, "this user may not request tokens")
    form = parse_qs(call.request.body.decode("latin-1"))
    if form.get("grant_type") != ["client_credentials"]:
        raise Refused(400, "grant_type must be client_credentials")
    application_id = call.query.get("applicationId", "")
    if not server.knows(application_id):
        raise Refused(400, "no such application")
    return json_reply(
        {
            "access_token": server.tokens.issue(application_id),
            "token_type": "Bearer",
            "expires_in": max(1, int(server.tokens.lifetime_s)),
        }
    )


def slide_information(server: PathologyServer, call: Call) -> Reply:
    slide = _slide(server, call)
    if call.query.get("scope", "extended") != "extended":
        raise Refused(400, "scope may only be extended")
    return json_reply(
        slide_info(
            slide,
            server.api_version,
            server.quality_of(slide),
            extended="scope" in call.query,
            phi=call.says("includePHI"),
        )
    )


def label(server: PathologyServer, call: Call) -> Reply:
    slide = _slide(server, call)
    if slide.label is None:
        return Reply(204)
    return Reply(200, {"Content-Type": "image/jpeg"}, slide.label)


def files(server: PathologyServer, call: Call) -> Reply:
    sent = _slide(server, call).files
    if not sent.parts and sent.raw is None:
        raise Refused(404, "the slide has no files")
    return Reply(
        200,
        sent.headers(),
        sent.chunks(),
        length=None if sent.chunked else sent.length,
        fault=sent.fault,
    )


def slide_case(server: PathologyServer, call: Call) -> Reply:
    slide = _slide(server, call)
    if slide.accession_number is None:
        raise Refused(404, "the slide belongs to no case")
    slides = server.case(slide.accession_number, None)
    phi = call.says("includePHI")
    return json_reply([case_entry(one, phi=phi) for one in slides])


def case(server: PathologyServer, call: Call) -> Reply:
    # Sectra's own clients differ in the parameter's name.
    issuer = call.query.get("accessionNumberIssuer") or call.query.get(
        "accessionNumberIssuerId"
    )
    slides = server.case(call.names["accessionNumber"], issuer)
    phi = call.says("includePHI")
    return json_reply([case_entry(one, phi=phi) for one in slides])


def quality(server: PathologyServer, call: Call) -> Reply:
    slide = _slide(server, call)
    body = _checked_json(server, call, "QualityControlUpdate")
    wanted = body["qualityControl"]
    held = server.quality_of(slide)
    if held is None:
        raise Refused(400, "the slide has no quality control")
    if wanted["versionId"] != held["versionId"]:
        raise Refused(server.conflict_status, "the quality control was changed since")
    server.set_quality(slide.slide_id, wanted["status"])
    return json_reply({})


def tile(server: PathologyServer, call: Call) -> Reply:
    folder = f"{call.names['slideId']}_files"
    address = parse_tile(folder, call.names["level"], call.names["file"])
    slide = server.slides.get(call.names["slideId"])
    if slide is None or address is None or not slide.streamable:
        raise Refused(404, "no such tile")
    extension = address.extension
    if extension not in slide.formats and extension != "jpeg":
        raise Refused(404, "no such format")
    planes = [one for one, _ in slide.focal_planes] or ["0"]
    # Sectra's own client always appends a plane, its viewer leaves it out.
    middle = min(slide.focal_planes or (("0", 0.0),), key=lambda one: abs(one[1]))[0]
    plane = address.focal_plane or middle
    if plane not in planes:
        raise Refused(404, "no such focal plane")
    path = call.query.get("opticalPath") or call.query.get("channels") or ""
    if path and path not in {one for one, _ in slide.optical_paths}:
        raise Refused(404, "no such optical path")
    box = slide.pyramid.box(address.level, address.column, address.row)
    if box is None:
        raise Refused(404, "outside the slide")
    wanted = (address.level, address.column, address.row, plane, path, extension)
    return Reply(
        200,
        {"Content-Type": MIME_TYPES[extension]},
        lambda: _drawn(slide, *wanted),
    )


def create_result(server: PathologyServer, call: Call) -> Reply:
    body = _result_body(server, call, "NewResult")
    stored = server.results.create(call.application_id, body)
    return json_reply(stored, 200 if call.route.startswith("hooks") else 201)


def update_result(server: PathologyServer, call: Call) -> Reply:
    held = _found(lambda: server.results.get(call.application_id, call.result_id))
    parsed = _parsed(call)
    if isinstance(parsed, dict) and "versionId" not in parsed:
        raise Refused(server.conflict_status, "an update says the version it changes")
    body = _result_body(server, call, "UpdateResult")
    if body["slideId"] != held["slideId"]:
        raise Refused(400, "slideId: a result stays on its slide")
    if body.get("id", call.result_id) != call.result_id:
        raise Refused(400, "id: another one than that of the path")
    try:
        return json_reply(
            server.results.update(call.application_id, call.result_id, body)
        )
    except StaleVersion as stale:
        raise Refused(server.conflict_status, str(stale)) from stale
    except NoSuchResult as gone:
        raise Refused(404, str(gone)) from gone


def get_result(server: PathologyServer, call: Call) -> Reply:
    return json_reply(
        _found(lambda: server.results.get(call.application_id, call.result_id))
    )


def results_of_slide(server: PathologyServer, call: Call) -> Reply:
    _slide(server, call)
    return json_reply(
        server.results.of_slide(call.application_id, call.names["slideId"])
    )


def attachment(server: PathologyServer, call: Call) -> Reply:
    name = call.query.get("name", "")
    try:
        content = server.results.attachment(call.application_id, call.result_id, name)
    except NoSuchResult as gone:
        raise Refused(404, str(gone)) from gone
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
    asked = call.request.headers.get("range")
    if asked is None:
        return Reply(200, headers, content)
    span = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", asked)
    if span is None or not (span[1] or span[2]):
        raise Refused(400, "Range: say bytes=first-last")
    if span[1]:
        first, last = int(span[1]), int(span[2] or len(content) - 1)
    else:
        first, last = max(0, len(content) - int(span[2])), len(content) - 1
    last = min(last, len(content) - 1)
    if first > last:
        raise Refused(416, "Range: beyond the end")
    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return Reply(206, headers, content[first : last + 1])


def attach(server: PathologyServer, call: Call) -> Reply:
    if not server.attachment_upload:
        raise Refused(405, "how the real server takes attachments is not public")
    try:
        server.results.attach(
            call.application_id,
            call.result_id,
            call.query.get("name", ""),
            call.request.body,
        )
    except NoSuchResult as gone:
        raise Refused(404, str(gone)) from gone
    return json_reply({})


def application(server: PathologyServer, call: Call) -> Reply:
    return json_reply(server.application_body(call.application_id))


HANDLERS: dict[str, Handler] = {
    "info": info,
    "launchdata": launchdata,
    "token": token,
    "slides.info": slide_information,
    "slides.label": label,
    "slides.files": files,
    "slides.case": slide_case,
    "slides.quality": quality,
    "case": case,
    "tiles": tile,
    "results.create": create_result,
    "results.of_slide": results_of_slide,
    "results.attachment": attachment,
    "results.attach": attach,
    "results.get": get_result,
    "results.update": update_result,
    "application": application,
    "hooks.create": create_result,
    "hooks.update": update_result,
}


@lru_cache(maxsize=2048)
def _drawn(
    slide: Slide, level: int, column: int, row: int, plane: str, path: str, form: str
) -> bytes:
    """The bytes of a tile; many jobs on one slide ask for the same ones."""
    box = slide.pyramid.box(level, column, row)
    assert box is not None
    pixels = slide.picture.region(
        slide.pyramid.downsample(level), box, f"{plane}|{path}"
    )
    return encode(pixels, "jpg" if form == "jpeg" else form)


def _slide(server: PathologyServer, call: Call) -> Slide:
    slide = server.slides.get(call.names["slideId"])
    if slide is None:
        raise Refused(404, "no such slide")
    return slide


def _found(look: Callable[[], Json]) -> Json:
    try:
        return look()
    except NoSuchResult as gone:
        raise Refused(404, str(gone)) from gone


def _parsed(call: Call) -> object:
    try:
        return rules.read_json(call.request.body)
    except rules.NotJson as error:
        raise Refused(400, str(error)) from error


def _checked_json(server: PathologyServer, call: Call, schema: str) -> Json:
    said = call.request.headers.get("content-type", "").partition(";")[0].strip()
    if server.strict and said.lower() != "application/json":
        raise Refused(415, f"Content-Type is application/json, not {said!r}")
    body = _parsed(call)
    problem = schema_problem(schema, body, strict=server.strict)
    if problem is not None or not isinstance(body, dict):
        raise Refused(400, problem or "the body is an object")
    return body


def _result_body(server: PathologyServer, call: Call, schema: str) -> Json:
    body = _checked_json(server, call, schema)
    slide = server.slides.get(body["slideId"])
    reasons = rules.refusals(body, slide, call.declared, strict=server.strict)
    reason = next(reasons, None)
    if reason is not None or slide is None:
        raise Refused(400, reason or "no such slide")
    for text in rules.warnings(body, slide):
        server.warn(f"{call.request.method} {call.request.raw_path}: {text}")
    return body


def _basic_user(server: PathologyServer, header: str) -> str:
    scheme, _, encoded = header.partition(" ")
    try:
        told = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        told = ""
    user, _, password = told.partition(":")
    if scheme.lower() != "basic" or server.users.get(user) != password or not user:
        raise Refused(401, "name or password is wrong")
    return user
