"""The table of routes: path, method, since which version, and who may ask.

A path is split before it is decoded, so that an accession number with a slash in it
stays one segment. Earlier routes win: the literal `slide` over a result's id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from .versions import CASES, OLDEST, QUALITY_CONTROL, Version

Access = Literal["bearer", "basic", "session"]


@dataclass(frozen=True)
class Route:
    """One route.

    Attributes
    ----------
    name
        As the fault plan and the record say it.
    pattern
        Segments below the base; `{name}` stands for any one, and `{name}_files` for
        one with this ending.
    since
        The version from which on the route exists.
    access
        What authorises: a bearer token, a name and password, or a session in the query.
    declares
        Whether the request must say its version of the API.
    """

    name: str
    method: str
    pattern: str
    since: Version = OLDEST
    access: Access = "bearer"
    declares: bool = True


_RESULTS = "applications/{applicationId}/results"

ROUTES = (
    Route("info", "GET", "info"),
    Route("launchdata", "GET", "launchdata", access="session", declares=False),
    Route("token", "POST", "token", access="basic", declares=False),
    Route("slides.info", "GET", "slides/{slideId}/info"),
    Route("slides.label", "GET", "slides/{slideId}/label"),
    Route("slides.files", "GET", "slides/{slideId}/files"),
    Route("slides.case", "GET", "slides/{slideId}/request/images/info", since=CASES),
    Route(
        "slides.quality",
        "PUT",
        "slides/{slideId}/qualityControl",
        since=QUALITY_CONTROL,
    ),
    Route("case", "GET", "requests/{accessionNumber}/images/info", since=CASES),
    Route("tiles", "GET", "images/{slideId}_files/{level}/{file}"),
    Route("results.create", "POST", _RESULTS),
    Route("results.of_slide", "GET", f"{_RESULTS}/slide/{{slideId}}"),
    Route("results.attachment", "GET", f"{_RESULTS}/{{resultId}}/attachments"),
    Route("results.attach", "PUT", f"{_RESULTS}/{{resultId}}/attachments"),
    Route("results.get", "GET", f"{_RESULTS}/{{resultId}}"),
    Route("results.update", "PUT", f"{_RESULTS}/{{resultId}}"),
    Route("application", "GET", "applications/{applicationId}"),
    Route("hooks.create", "POST", "hooks/{applicationId}/results"),
    Route("hooks.update", "PUT", "hooks/{applicationId}/results/{resultId}"),
)

ALIASES = {"hooks.create": "results.create", "hooks.update": "results.update"}


@dataclass(frozen=True)
class Found:
    """A route and what stands in its path, decoded."""

    route: Route
    names: dict[str, str]


def find(method: str, path: str, version: Version) -> Found | int:
    """The route of a path below the base, or the status that says there is none."""
    # Only the collection of results may end with a slash.
    segments = path.strip("/").split("/")
    trailing = path.endswith("/")
    other_method = False
    for route in ROUTES:
        names = _matched(route.pattern, segments)
        if names is None or route.since > version:
            continue
        if trailing and not route.pattern.endswith("results"):
            continue
        if "resultId" in names and not names["resultId"].isascii():
            continue
        if "resultId" in names and not names["resultId"].isdigit():
            continue
        if route.method == method:
            return Found(route, names)
        other_method = True
    return 405 if other_method else 404


def _matched(pattern: str, segments: list[str]) -> dict[str, str] | None:
    wanted = pattern.split("/")
    if len(wanted) != len(segments):
        return None
    names: dict[str, str] = {}
    for one, segment in zip(wanted, segments, strict=True):
        if not one.startswith("{"):
            if segment != one:
                return None
            continue
        name, _, ending = one[1:].partition("}")
        text = unquote(segment)
        if ending and not text.endswith(ending):
            return None
        if not text:
            return None
        names[name] = text.removesuffix(ending) if ending else text
    return names
