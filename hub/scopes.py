"""What a token may be used for in the catalogue, as the hub knows it.

Which projects a scope may be used on follows from the person's groups; the scope only
narrows it: a person can ask the hub for a token that may read and nothing else.
"""

from __future__ import annotations

from types import MappingProxyType

CATALOG = MappingProxyType(
    {
        "catalog:read": "Find images and read what is known of them",
        "pixels:read": "Read the pixels of images",
        "catalog:write": "Register and change images and what they belong to",
        "annot:write": "Write tags, comments, marks and measurements",
        "runs:write": "Start analyses",
        "runs:cancel": "Cancel analyses",
        "export": "Download whole sets of images",
        "admin": "Share and delete projects",
    }
)


def named(*scopes: str) -> list[str]:
    """The hub's names of scopes of the catalogue."""
    return [f"custom:{scope}" for scope in scopes]


def custom_scopes() -> dict[str, dict[str, str]]:
    """What the hub has to be told of them (JupyterHub's `custom_scopes`)."""
    return {f"custom:{scope}": {"description": said} for scope, said in CATALOG.items()}
