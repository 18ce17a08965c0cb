"""Where a job's structure set goes: settings and nodes as targets of a delivery.

Required are all but what a node's record marks as `"required": false`. A record of a
node, as the pages keep it:

    {"name": "tps", "host": "10.1.2.3", "port": 104, "ae_title": "TPS",
     "target": "planning", "priority": 0, "required": true, "can_find": false,
     "connect_s": 10, "timeout_s": 60,
     "tls": {"ca": "...", "certificate": "...", "key": "...", "hostname": true}}

Nodes of the same `target` are one another's fallbacks, the lowest priority first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from services.dicom_client.delivery import NodeTarget, Target, WebTarget
from services.dicom_client.dicomweb import DicomWebServer
from services.dicom_client.errors import BadRequest
from services.dicom_client.folder_delivery import FolderTarget
from services.dicom_client.nodes import Node
from services.dicom_client.settings import ServiceSettings
from services.dicom_client.tls import ClientTls

BESIDE, FOLDER, WEB = "beside-images", "folder", "dicomweb"
_FIELDS = {
    *("name", "host", "port", "ae_title", "calling_ae_title", "priority", "target"),
    *("required", "can_find", "tls", "connect_s", "timeout_s"),
}


def targets_of(
    settings: ServiceSettings,
    nodes: Sequence[Mapping[str, Any]],
    images: Sequence[Path],
    *,
    stow: DicomWebServer | None = None,
) -> list[Target]:
    """The targets of a job whose images lie at `images`."""
    targets: list[Target] = []
    folders = {path.parent for path in images}
    watched = [root.resolve() for root in settings.watch]
    beside = min(folders, key=str) if folders else None
    if settings.beside_images and beside is not None and _is_below(beside, watched):
        targets.append(_folder(BESIDE, beside, settings))
    if settings.deliver_folder is not None:
        targets.append(_folder(FOLDER, settings.deliver_folder, settings))
    if stow is not None:
        targets.append(WebTarget(WEB, stow))
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for record in nodes:
        grouped.setdefault(str(record.get("target") or record["name"]), []).append(
            record
        )
    for name, records in grouped.items():
        required = any(record.get("required", True) for record in records)
        alternatives = tuple(node_of(record) for record in records)
        targets.append(NodeTarget(name, alternatives, required))
    return targets


def _folder(name: str, folder: Path, settings: ServiceSettings) -> FolderTarget:
    return FolderTarget(
        name,
        folder,
        settings.ready_marker,
        settings.file_prefix,
        int(settings.file_mode, 8),
    )


def node_of(record: Mapping[str, Any]) -> Node:
    """A node's record as a node; BadRequest says what is wrong with it."""
    strange = set(record) - _FIELDS
    if strange:
        raise BadRequest(f"a node has no {', '.join(sorted(strange))}")
    try:
        tls = record.get("tls")
        node = Node(
            str(record["name"])[:64],
            str(record["host"]),
            int(record["port"]),
            str(record["ae_title"]),
            calling_ae_title=str(record.get("calling_ae_title") or "THEATRUM"),
            priority=int(record.get("priority", 0)),
            tls=None if tls is None else _tls(tls),
            can_find=bool(record.get("can_find", False)),
            connect_s=float(record.get("connect_s") or 10),
            timeout_s=float(record.get("timeout_s") or 60),
        )
    except (KeyError, TypeError, ValueError) as err:
        raise BadRequest(
            "a node has a name, a host, a port and an AE title; its priority is a "
            "whole number"
        ) from err
    if not (node.name and node.host and 0 < node.port < 65536):
        raise BadRequest("a node has a name, a host and a port of 1 to 65535")
    if not (0 < node.connect_s <= 600 and 0 < node.timeout_s <= 86_400):
        raise BadRequest("a node is waited for longer than 0 s, and a day at most")
    if not 0 < len(node.ae_title.strip()) <= 16:
        raise BadRequest("an AE title has 1 to 16 characters")
    return node


def check_nodes(records: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a list of nodes that cannot be sent to; BadRequest says why."""
    names = [node_of(record).name for record in records]
    if len(set(names)) != len(names):
        raise BadRequest("two nodes have one name: rename one")
    taken = {BESIDE, FOLDER, WEB} & {
        str(record.get("target") or record["name"]) for record in records
    }
    if taken:
        raise BadRequest(f"{', '.join(sorted(taken))} is the name of another target")


def _tls(told: Mapping[str, Any]) -> ClientTls:
    files = {
        name: Path(str(told[name]))
        for name in ("ca", "certificate", "key")
        if told.get(name)
    }
    return ClientTls(**files, hostname=bool(told.get("hostname", True)))


def _is_below(folder: Path, roots: Sequence[Path]) -> bool:
    real = folder.resolve()
    return any(real.is_relative_to(root) for root in roots)
