"""openslide-python's Deep Zoom example, less its pages: a WSGI application.

    SLIDE=... TILE=240 OVERLAP=0 gunicorn deep_zoom_app:application

Runs on the peers' own Python; knows nothing of this project.
"""

import io
import os
import re

from openslide import OpenSlide
from openslide.deepzoom import DeepZoomGenerator

_TILES = DeepZoomGenerator(
    OpenSlide(os.environ["SLIDE"]),
    tile_size=int(os.environ["TILE"]),
    overlap=int(os.environ["OVERLAP"]),
)


def application(environ, start_response):
    found = re.fullmatch(r"/(\d+)/(\d+)_(\d+)\.jpeg", environ["PATH_INFO"])
    if not found:
        start_response("404 Not Found", [])
        return []
    level, column, row = map(int, found.groups())
    buffer = io.BytesIO()
    tile = _TILES.get_tile(level, (column, row))
    tile.save(buffer, "jpeg", quality=75)
    body = buffer.getvalue()
    start_response(
        "200 OK",
        [("Content-Type", "image/jpeg"), ("Content-Length", str(len(body)))],
    )
    return [body]
