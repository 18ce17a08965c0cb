"""Invocations: the bodies that the pathology server posts, read and checked.

Strict in what this service uses, liberal in all else: unknown members are ignored, a
null context is an empty one, a missing cancellation token is none. What cannot be
stored or computed with is refused before anything else sees it: NaN and infinity, NUL
and lone surrogates, nesting and points without measure.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from services.ia_api.errors import BadInvocation, TooLarge

Model = TypeVar("Model", bound=BaseModel)
Action = Literal["create", "modify", "delete", "cancel", "newImageFiles"]
ACTIONS: tuple[Action, ...] = ("create", "modify", "delete", "cancel", "newImageFiles")


def _not_a_path(text: str) -> str:
    if text in {".", ".."}:
        raise ValueError("this is a path, not a name")
    return text


Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=256),
    AfterValidator(_not_a_path),
]
SlideId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=1024),
    AfterValidator(_not_a_path),
]
# What an Authorization header can carry (RFC 9110, clause 5.5), and no line break.
BearerToken = Annotated[
    str, StringConstraints(min_length=1, max_length=16_384, pattern=r"^[\x21-\x7e]+$")
]
Address = Annotated[
    str, StringConstraints(max_length=2048, pattern=r"^https?://[\x21-\x7e]+$")
]
# Coordinates are fractions of the slide's width; a portrait slide has y above 1.
Coordinate = Annotated[float, Field(ge=-1000, le=1000, strict=True)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class CallbackInfo(_Model):
    """Where to call back, and as whom."""

    url: Address
    token: BearerToken = Field(repr=False)


class _Point(_Model):
    x: Coordinate
    y: Coordinate


class _Polygon(_Model):
    points: list[_Point] = Field(min_length=3)


class _WholeSlide(_Model):
    type: Literal["wholeSlide"]
    content: dict[str, Any] | None = None


class _TaggedContent(_Model):
    polygon: _Polygon
    tags: list[str] | None = None
    # Without tags it is absent, null or meaningless: never an index unchecked.
    tagIndex: int | None = None  # noqa: N815 - the interface's name


class _TaggedPolygon(_Model):
    type: Literal["taggedPolygon"]
    content: _TaggedContent


class _AreasContent(_Model):
    polygons: list[_Polygon] = Field(min_length=1)


class _MultiArea(_Model):
    type: Literal["multiArea"]
    content: _AreasContent


class CreateInput(_Model):
    """What the user marked."""

    input: Annotated[
        _WholeSlide | _TaggedPolygon | _MultiArea, Field(discriminator="type")
    ]


class StoredResult(_Model):
    """As much of a stored result as must be there."""

    id: int = Field(ge=-(2**63), lt=2**63)
    versionId: str = Field(min_length=1, max_length=256)  # noqa: N815
    slideId: SlideId  # noqa: N815
    data: dict[str, Any]


class _Stored(_Model):
    input: StoredResult


class _Content(_Model):
    """What a person may have changed; the rest of a result is written back as it is."""

    context: dict[str, Any] | None = None
    result: dict[str, Any]


class _ModifiedResult(StoredResult):
    content: _Content = Field(alias="data")


class _Modified(_Model):
    input: _ModifiedResult


class _Common(_Model):
    action: Action | None = None
    applicationId: Name  # noqa: N815
    slideId: SlideId  # noqa: N815
    callbackInfo: CallbackInfo  # noqa: N815
    context: dict[str, Any] | None = None
    cancellationToken: Annotated[str, Field(max_length=1024)] | None = None  # noqa: N815


class Invocation(BaseModel):
    """A checked invocation."""

    model_config = ConfigDict(frozen=True)

    action: Action
    application_id: str
    slide_id: str
    callback_url: str
    token: str = Field(repr=False)
    context: dict[str, Any]
    cancellation_token: str | None
    input: dict[str, Any] | None
    """For `create` what the user marked; else the stored result, as it was sent."""
    image_info: dict[str, Any] | None


class Limits(BaseModel):
    """How much an invocation may hold."""

    depth: int
    points: int


def parse(body: bytes, limits: Limits, *, notification: bool = False) -> Invocation:
    """Read a body. `notification`: it came to that route, where `action` may be absent.

    Raises BadInvocation, with the member that is wrong but not what it holds, and
    TooLarge for more points than the limit.
    """
    said = _json(body)
    _check(said, limits)
    common = _read(_Common, said)
    action = common.action or ("newImageFiles" if notification else None)
    if action is None:
        raise BadInvocation(f"action is missing: {', '.join(ACTIONS)} are known")
    given = said.get("input")
    if action == "create":
        given = _marked(_read(CreateInput, said))
    elif action == "modify":
        _read(_Modified, said)
    elif action == "delete":
        _read(_Stored, said)
    elif action == "newImageFiles" and not isinstance(said.get("imageInfo"), dict):
        raise BadInvocation("imageInfo: an object is needed")
    return Invocation(
        action=action,
        application_id=common.applicationId,
        slide_id=common.slideId,
        # Servers send it with or without the slash at its end: one is one.
        callback_url=common.callbackInfo.url.rstrip("/"),
        token=common.callbackInfo.token,
        context=common.context or {},
        cancellation_token=common.cancellationToken or None,
        input=given if isinstance(given, dict) else None,
        image_info=said["imageInfo"] if action == "newImageFiles" else None,
    )


def _marked(checked: CreateInput) -> dict[str, Any]:
    """The input as it is kept: what it is known to hold, and nothing besides."""
    kept = checked.input.model_dump(exclude_unset=True)
    if isinstance(checked.input, _WholeSlide) and checked.input.content:
        del kept["content"]
    return kept


def _json(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as err:
        raise BadInvocation("the body is no JSON in UTF-8") from err
    if not isinstance(said, dict):
        raise BadInvocation("the body is no JSON object")
    return said


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _check(said: dict[str, Any], limits: Limits) -> None:
    """Walk all of it once, without recursion: depth, points, numbers and texts."""
    points = 0
    waiting: list[tuple[Any, int]] = [(said, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict | list):
            if depth > limits.depth:
                raise BadInvocation(f"the body is nested deeper than {limits.depth}")
            if isinstance(value, dict):
                for key in value:
                    _check_text(key)
                points += "x" in value and "y" in value
                if points > limits.points:
                    raise TooLarge(f"more than {limits.points} points")
            members = value.values() if isinstance(value, dict) else value
            waiting.extend((one, depth + 1) for one in members)
        elif isinstance(value, str):
            _check_text(value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise BadInvocation("a number is larger than any that can be used")
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise BadInvocation("a whole number is larger than any that can be used")


def _check_text(text: str) -> None:
    if "\0" in text:
        raise BadInvocation("a text holds the character NUL")
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise BadInvocation("a text holds half a character") from err


def _read(model: type[Model], said: dict[str, Any]) -> Model:
    try:
        return model.model_validate(said)
    except ValidationError as err:
        raise BadInvocation("; ".join(_fault(one) for one in err.errors()[:5])) from err


def _fault(fault: Any) -> str:
    """Which member is wrong and why; never its value, which may be a token."""
    name = ".".join(str(part) for part in fault["loc"])
    return f"{name or 'body'}: {fault['msg'][:200]}"
