"""What the front page shows: the question of its address, its facets, its images.

The words of the address are those of the interface's listings, so that an address can
be shared, kept as a query, or asked by a program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from theatrum.catalog.errors import BadQuery
from theatrum.catalog.query import paging
from theatrum.catalog.query.facets import Facet
from theatrum.catalog.query.spec import Leaf, Q, Spec

from services.catalog.api import listing
from services.catalog.api.here import Service
from services.catalog.api.images import presented
from services.catalog.api.wire import OverTheWire

PER_PAGE = 60
SPACINGS = (0.001, 0.1, 0.6, 1.0, 2.0)
"""Millimetres between which the spacings of images are counted."""
FACETS = (
    ("project__name", "Project"),
    ("modality", "Modality"),
    ("plane", "Plane"),
    ("subject__diagnosis", "Diagnosis"),
    ("sample__stain", "Stain"),
    ("channels__name", "Channel"),
    ("acquisition__manufacturer", "Maker"),
    ("acquisition__model", "Model"),
    ("acquisition__field_strength", "Field strength (T)"),
    ("acquisition__body_part", "Body part"),
    ("format", "Format"),
    ("kind", "Kind"),
    ("state", "State"),
    ("tags", "Tag"),
)
SORTS = (
    ("", "by name"),
    ("-created_at", "newest first"),
    ("created_at", "oldest first"),
    ("spacing", "finest first"),
    ("-size_bytes", "largest first"),
)


@dataclass(frozen=True)
class Value:
    """A value of a facet, and the words of the address that has it chosen or not."""

    text: str
    count: int
    chosen: bool
    href: str


@dataclass(frozen=True)
class Group:
    """A facet with its values."""

    title: str
    values: Sequence[Value]


@dataclass(frozen=True)
class Seen:
    """What the page shows of a question."""

    words: Mapping[str, str]
    count: int
    size_bytes: int
    images: Sequence[Mapping[str, Any]]
    groups: Sequence[Group]
    following: str | None
    python: str


def seen(service: Service, backend: OverTheWire, words: Mapping[str, str]) -> Seen:
    """Ask what the address asks.

    Raises
    ------
    BadQuery
        Where the address cannot be understood.
    """
    cursor = words.get("cursor") or None
    kept = {
        name: value
        for name, value in words.items()
        if value and name not in {"cursor", "fields", "limit", "expand", "format"}
    }
    spec = listing.spec_of("images", kept.items())
    rows, following = paging.page(backend, spec, limit=PER_PAGE, cursor=cursor)
    sizes = backend.facets(_plain(spec), [Facet("size_bytes", 1000)])["size_bytes"]
    return Seen(
        words=kept,
        count=backend.count(spec),
        size_bytes=sum((size or 0) * number for size, number in sizes),
        images=presented(service, backend, rows),
        groups=[*_groups(backend, kept)],
        following=href(kept | {"cursor": following}) if following else None,
        python=python(kept),
    )


def python(words: Mapping[str, str]) -> str:
    """The same question as a notebook asks it."""
    conditions = ", ".join(
        f"{name}={_literal(name, value)}"
        for name, value in words.items()
        if name != "sort"
    )
    asked = f"catalog.images.filter({conditions})" if conditions else "catalog.images"
    order = f'.order_by("{words["sort"]}")' if words.get("sort") else ""
    return f"from theatrum import catalog\n\n{asked}{order}"


def _literal(name: str, value: str) -> str:
    if name.endswith("__in"):
        return repr(value.split(","))
    if name.endswith(("__lt", "__lte", "__gt", "__gte")):
        try:
            return f"{float(value):g}"
        except ValueError:
            return repr(value)
    return repr(value)


def _plain(spec: Spec) -> Spec:
    return replace(spec, order=(), values=())


def _groups(backend: OverTheWire, words: Mapping[str, str]) -> Sequence[Group]:
    """Each facet counted over what all others leave, so that more can be chosen."""
    groups = []
    for name, title in FACETS:
        chosen = [one for one in words.get(f"{name}__in", "").split(",") if one]
        others = {key: value for key, value in words.items() if key != f"{name}__in"}
        spec = _plain(listing.spec_of("images", others.items()))
        counted = backend.facets(spec, [Facet(name, 12)])[name]
        values = [
            _value(name, str(value), count, chosen, others)
            for value, count in counted
            if value not in (None, "") and "," not in str(value)
        ]
        shown = {value.text for value in values}
        values += [
            _value(name, one, 0, chosen, others) for one in chosen if one not in shown
        ]
        if len(values) > 1 or chosen:
            groups.append(Group(title, values))
    return [*groups, *_spacing(backend, words)]


def _value(
    name: str, text: str, count: int, chosen: Sequence[str], others: Mapping[str, str]
) -> Value:
    is_chosen = text in chosen
    after = [one for one in chosen if one != text] if is_chosen else [*chosen, text]
    words = dict(others)
    if after:
        words[f"{name}__in"] = ",".join(after)
    return Value(text, count, is_chosen, href(words))


def _spacing(backend: OverTheWire, words: Mapping[str, str]) -> Sequence[Group]:
    own = {"spacing__gte", "spacing__lt"}
    others = {key: value for key, value in words.items() if key not in own}
    spec = _plain(listing.spec_of("images", others.items()))
    counted = dict(backend.facets(spec, [Facet("spacing", 12, SPACINGS)])["spacing"])
    values = []
    for place in range(len(SPACINGS) + 1):
        low = SPACINGS[place - 1] if place else None
        high = SPACINGS[place] if place < len(SPACINGS) else None
        said = {
            name: f"{edge:g}"
            for name, edge in (("spacing__gte", low), ("spacing__lt", high))
            if edge is not None
        }
        is_chosen = said == {key: words[key] for key in own & words.keys()}
        count = counted.get(place, 0)
        if count or is_chosen:
            text = _between(low, high)
            address = href(others if is_chosen else others | said)
            values.append(Value(text, count, is_chosen, address))
    if len(values) > 1 or any(value.chosen for value in values):
        return [Group("Spacing", values)]
    return []


def _between(low: float | None, high: float | None) -> str:
    if low is None:
        return f"finer than {_length(high or 0)}"
    if high is None:
        return f"{_length(low)} and coarser"
    return f"{_length(low)} to {_length(high)}"


def _length(mm: float) -> str:
    return f"{mm * 1000:g} µm" if mm < 0.1 else f"{mm:g} mm"


def href(words: Mapping[str, str | None]) -> str:
    return "?" + urlencode({name: value for name, value in words.items() if value})


def words_of(spec: Spec) -> dict[str, str] | None:
    """A kept question as words of an address; None where it is too much for one."""
    words: dict[str, str] = {}
    for q in spec.where:
        for part in q.parts if q.op == "and" else (q,):
            if isinstance(part, Q) or part.field in words:
                return None
            value = _word(part)
            if value is None:
                return None
            words[part.field] = value
    if spec.order:
        words["sort"] = ",".join(spec.order)
    return words


def _word(leaf: Leaf) -> str | None:
    match leaf.value:
        case bool(value):
            return "true" if value else "false"
        case str() | int() | float():
            return str(leaf.value)
        case tuple(values) if all(isinstance(one, str | int | float) for one in values):
            return ",".join(str(one) for one in values)
    return None


def refuse_unknown(words: Mapping[str, str]) -> None:
    """Raise BadQuery for an address that is longer than any page makes it."""
    if len(words) > 60 or sum(map(len, words.values())) > 6000:
        raise BadQuery("this address asks too much at once")
