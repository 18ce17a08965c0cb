"""Pages that follow what happens, without a reload.

What goes on is asked for again by htmx at the page's own address; where nothing changed
the answer is empty, and nothing on the page is touched.
"""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.responses import HTMLResponse

from hub.forms import is_script, own_xsrf
from hub.signin import Person
from services.catalog.api.here import Service
from services.catalog.pages.rendering import page, part


def live(
    request: Request,
    service: Service,
    visitor: Person,
    name: str,
    *,
    going: bool,
    status: int = 200,
    **facts: Any,  # Any: what the template shows
) -> Response:
    """A page with a part that follows what happens; or only that part."""
    xsrf = own_xsrf(request)
    inner = part(service, f"{name}_live.html", xsrf=xsrf, **facts)
    digest = hashlib.sha256(f"{going}{inner}".encode()).hexdigest()[:16]
    if is_script(request) and request.query_params.get("seen") == digest:
        return Response(status_code=204)
    words = {
        name: value
        for name, value in request.query_params.items()
        if name in ("after", "before", "show")
    }
    live = part(
        service,
        "live.html",
        inner=inner,
        digest=digest,
        going=going,
        address=request.url.path + (f"?{urlencode(words)}" if words else ""),
    )
    if is_script(request):
        return HTMLResponse(live)
    return page(
        service, visitor, f"{name}.html", status=status, xsrf=xsrf, live=live, **facts
    )
