"""The registered apps: a node each, with what the pathology server is told of it.

Every node that ships is an app; an own one becomes an app by one line of settings
(`[ia_api.apps.my-app]`, `node = "my_node.py:my_node"`). What an app asks the user for
follows from the ports of its node.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from theatrum.node import BadInputs, Node, NoSuchNode, find

from services.ia_api.settings import (
    AppSettings,
    BadSettings,
    InputType,
    ServiceSettings,
)

log = logging.getLogger("theatrum.ia_api")

SHIPPED = "theatrum.nodes"
_INPUTS = frozenset({"image", "polygon"})


@dataclass(frozen=True)
class App:
    """One app. `address` is what any process finds its node by."""

    id: str
    title: str
    node: Node[..., Any]  # Any: whatever a node returns
    address: str
    input: InputType
    needs: Literal["files", "tiles"]
    settings: AppSettings

    @property
    def version(self) -> str:
        """What is written beside every result."""
        return f"{self.node.name} {self.node.version}"


def registered(settings: ServiceSettings, home: Path) -> Mapping[str, App]:
    """All apps by their ids; BadSettings names the one that cannot be."""
    wanted = {
        **(_shipped() if settings.shipped_apps else {}),
        **settings.apps,
    }
    return {app_id: _app(app_id, one, home) for app_id, one in sorted(wanted.items())}


def _shipped() -> dict[str, AppSettings]:
    module = importlib.import_module(SHIPPED)
    found = {}
    for name in module.__all__:
        try:
            node = getattr(module, name)
        except ImportError as err:
            # What one node needs and lacks must not stop the others.
            log.warning("%s is left out: %s is not installed", name, err.name)
            continue
        if isinstance(node, Node) and _is_servable(node):
            found[node.name] = AppSettings(node=f"{SHIPPED}:{name}")
    return found


def _is_servable(node: Node[..., Any]) -> bool:
    """Whether a slide and the user's marks are all that the node takes."""
    return all(
        port.kind in _INPUTS or port.optional for port in node.inputs.values()
    ) and any(port.kind == "image" for port in node.inputs.values())


def _app(app_id: str, chosen: AppSettings, home: Path) -> App:
    where = f"ia_api.apps.{app_id}"
    file, colon, name = chosen.node.rpartition(":")
    address = chosen.node
    if colon and file.endswith(".py"):
        address = f"{home / file}:{name}"
    try:
        node = find(address)
        node.checked_parameters(chosen.parameters)
    except (NoSuchNode, BadInputs) as err:
        raise BadSettings(f"{where}: {err}") from err
    if not _is_servable(node):
        raise BadSettings(
            f"{where}: {chosen.node} takes something else than a slide and regions of "
            "it, which is all that the pathology server gives."
        )
    asked = chosen.input or _input_of(node)
    if chosen.tags and asked != "taggedPolygon":
        raise BadSettings(f'{where}: tags belong to input = "taggedPolygon".')
    return App(
        id=app_id,
        title=chosen.title or node.title,
        node=node,
        address=address,
        input=asked,
        needs=chosen.needs or ("files" if asked == "wholeSlide" else "tiles"),
        settings=chosen,
    )


def _input_of(node: Node[..., Any]) -> InputType:
    """What the user has to mark before the node can run."""
    regions = [
        port
        for port in node.inputs.values()
        if port.kind == "polygon" and not port.optional
    ]
    if not regions:
        return "wholeSlide"
    return "multiArea" if any(port.many for port in regions) else "taggedPolygon"


def registration(app: App, url: str, manufacturer: str) -> dict[str, Any]:
    """The registration object of section 1.3."""
    template: dict[str, Any] = {"type": app.input}
    if app.input == "taggedPolygon":
        template["content"] = {"tags": list(app.settings.tags)}
    return {
        "applicationId": app.id,
        "displayName": app.title,
        "manufacturer": manufacturer,
        "url": url,
        "inputTemplate": template,
        "context": dict(app.settings.context),
    }


def resources_of(app: App) -> dict[str, Any]:
    """The limits of the app's node, as plain values."""
    return dataclasses.asdict(app.node.resources)
