"""The addresses of a slide, built in this one place.

`base` is the path under which the service is mounted, such as `/services/tiles/`; with
or without slashes at its ends it gives the same address.
"""

from __future__ import annotations


def normal_base(base: str) -> str:
    """`base` with exactly one slash at its start and end."""
    inner = base.strip("/")
    return f"/{inner}/" if inner else "/"


def slide_url(base: str, token: str) -> str:
    """The address under which everything of one slide lies; ends with a slash."""
    return f"{normal_base(base)}s/{token}/"


def tiles_url(base: str, token: str) -> str:
    """The template of a tile's address, with `{z}`, `{x}` and `{y}` to fill in."""
    return slide_url(base, token) + "{z}/{x}/{y}"


def dicom_web_url(base: str, token: str) -> str:
    """The address that DICOMweb clients take for the service; no slash at its end."""
    return f"{normal_base(base)}dicomweb/{token}"
