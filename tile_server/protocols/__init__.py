"""The public protocols that speak of the same slides: addresses in, tiles out.

Each module maps the addresses of one protocol to the calls that the service's own
routes make, so its pixels are those of the map.
"""

from __future__ import annotations

from tornado.routing import URLSpec

from tile_server.protocols.deep_zoom import deep_zoom_routes
from tile_server.protocols.dicom_web import dicom_web_routes
from tile_server.protocols.iiif import iiif_routes
from tile_server.protocols.pixel import pixel_routes
from tile_server.protocols.zarr_group import zarr_routes


def protocol_routes(base: str) -> list[URLSpec]:
    """The routes under `base`, which starts and ends with a slash."""
    return [
        *deep_zoom_routes(base),
        *dicom_web_routes(base),
        *iiif_routes(base),
        *pixel_routes(base),
        *zarr_routes(base),
    ]


__all__ = ["protocol_routes"]
