"""Choosing a media type by a request's `Accept` (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence

_QUALITY = re.compile(r"\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*", re.IGNORECASE)
# Long lists are somebody's mistake or attack.
_MOST_RANGES = 64
# Programs say */* and know nothing of it: it counts only where it is named.
_ONLY_BY_NAME = frozenset({"image/webp"})


def choose(accept: str | None, offers: Sequence[str]) -> str:
    """The best of `offers`, which stand in our order of preference.

    Without a header it is the first, and also where none is acceptable: a picture that
    was not asked for serves a viewer better than a refusal (406).
    """
    if accept is None:
        return offers[0]
    wishes = _wishes(accept)
    rated = [(_rate(wishes, offer), offer) for offer in offers]
    best = max(quality for quality, _ in rated)
    if best <= 0:
        return offers[0]
    return next(offer for quality, offer in rated if quality == best)


def _wishes(accept: str) -> dict[str, float]:
    """Quality by media range, in small letters."""
    wishes: dict[str, float] = {}
    for part in accept.split(",")[:_MOST_RANGES]:
        name, *parameters = part.split(";")
        quality = 1.0
        for parameter in parameters:
            found = _QUALITY.fullmatch(parameter)
            if found is not None:
                quality = float(found[1])
        wishes[name.strip().lower()] = quality
    return wishes


def _rate(wishes: dict[str, float], offer: str) -> float:
    """The quality of the most specific range that holds `offer`; 0 where none does."""
    if offer in wishes:
        return wishes[offer]
    if offer in _ONLY_BY_NAME:
        return 0.0
    kind = offer.split("/")[0]
    return wishes.get(f"{kind}/*", wishes.get("*/*", 0.0))
