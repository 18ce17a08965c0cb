"""What no request may say in its body, whatever the route: numbers that JSON has not.

Python reads `NaN`, `Infinity` and `1e999` where RFC 8259 knows no such number. Passed
on, they would be refused where rows are written at the latest (`tables/finite.py`);
here they are refused of questions too, before anything is done.
"""

from __future__ import annotations

from fastapi import Request
from fastapi.requests import HTTPConnection
from theatrum.catalog.tables.finite import refuse


async def only_finite_numbers(asked: HTTPConnection) -> None:
    """Raise BadRecord where a JSON body holds a number that is not finite.

    Only of routes that take JSON: these have read their body whole by now. Others take
    theirs piece by piece.
    """
    route = asked.scope.get("route")
    if getattr(route, "body_field", None) is None or not isinstance(asked, Request):
        return
    media = asked.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == "application/json" or media.endswith("+json"):
        try:
            said = await asked.json()
        except ValueError:  # no body, or no JSON: the route says so itself
            return
        refuse(said, "body")
