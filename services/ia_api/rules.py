"""Triage of image notifications: which imported slides an app takes, and why not.

A pure function of what the notification brings, so that a slide that nobody wants
costs no callback and no row. What a notification does not say (the scanner is not
among the basic fields) is decided by the worker, before anything is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from services.ia_api.settings import Triage
from services.ia_api.slide_info import SlideInfo


def refusal(
    rules: Triage | None, slide: SlideInfo, *, complete: bool = False
) -> str | None:
    """Why a slide is not taken, as a short reason without its texts; None: taken.

    `complete`: the extended fields are there, as far as the server has them.
    """
    if rules is None:
        return "this app takes no notifications"
    texts = slide.texts
    for name, pattern, where in (
        ("stain", rules.stain, [texts.get("staining")]),
        (
            "organ",
            rules.organ,
            [texts.get("anatomy"), texts.get("specimen"), texts.get("bodyPart")],
        ),
        ("scanner", rules.scanner, [texts.get("stationName")]),
    ):
        if name == "scanner" and where == [None] and not complete:
            continue
        if pattern is not None and not _found(pattern, where):
            return f"the {name} does not match"
    return _size_refusal(rules, slide) or _state_refusal(rules, slide)


def _size_refusal(rules: Triage, slide: SlideInfo) -> str | None:
    least, most = rules.min_um_per_pixel, rules.max_um_per_pixel
    if least is None and most is None:
        return None
    if slide.um_per_pixel is None:
        return "the resolution is not known"
    if least is not None and slide.um_per_pixel < least:
        return "the resolution is finer than wanted"
    if most is not None and slide.um_per_pixel > most:
        return "the resolution is coarser than wanted"
    return None


def _state_refusal(rules: Triage, slide: SlideInfo) -> str | None:
    if rules.file_formats and slide.file_type not in rules.file_formats:
        return "the file format is not wanted"
    if rules.streamable is not None and slide.streamable != rules.streamable:
        return "it can be streamed" if slide.streamable else "it cannot be streamed"
    if (slide.quality_status or "NotSet") not in rules.quality:
        return "its quality control says otherwise"
    return None


def _found(pattern: str, texts: Iterable[str | None]) -> bool:
    return any(
        re.search(pattern, text, re.IGNORECASE) is not None
        for text in texts
        if text is not None
    )
