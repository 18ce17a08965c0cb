"""Structure sets on their way out: to folders, to DICOM nodes, to DICOMweb servers.

A delivery is done when the target was seen to hold the file, and is never done twice.
For that the caller is told before the first byte goes (`on_attempt`) and gives back
what it was told when it asks again (`earlier`). What a target itself can say counts
more: a folder's file is compared by checksum, a node is asked by C-FIND where it
answers that, a DICOMweb server by QIDO.

A target that is a node has fallbacks, by priority. The next one is taken only while the
one before certainly has nothing: it could not be reached, or it refused. Where an
answer was lost, the same node is asked again later, and no other. One that cannot be
asked is sent nothing again until a person says so, or a setting does (`resend`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread

from services.dicom_client import nodes
from services.dicom_client.dicomweb import DicomWeb, DicomWebServer
from services.dicom_client.errors import PeerError
from services.dicom_client.folder_delivery import FolderTarget, place
from services.dicom_client.nodes import Node, NodeError
from services.dicom_client.outcomes import Attempt, Outcome


@dataclass(frozen=True)
class NodeTarget:
    """Any one of these nodes, the lowest priority first."""

    name: str
    nodes: tuple[Node, ...]
    required: bool = True


@dataclass(frozen=True)
class WebTarget:
    """A DICOMweb server that takes STOW-RS."""

    name: str
    server: DicomWebServer
    required: bool = True


Target = FolderTarget | NodeTarget | WebTarget
OnAttempt = Callable[[Attempt], None]


def _nobody(_attempt: Attempt) -> None:
    """The caller keeps no record; then only what targets say counts."""


def deliver(
    file: Path,
    targets: Sequence[Target],
    *,
    earlier: Sequence[Attempt] = (),
    on_attempt: OnAttempt = _nobody,
    resend: bool = False,
) -> list[Outcome]:
    """Bring a file to every target; one outcome each, in their order.

    Parameters
    ----------
    file
        A whole DICOM file of ours; the same bytes each time this is repeated.
    earlier
        Attempts at delivering this very file that were reported before.
    on_attempt
        Takes note of an attempt; it must be durable when it returns.
    resend
        Send again to a node that did not answer and cannot be asked.
    """
    return [_deliver(file, target, earlier, on_attempt, resend) for target in targets]


def is_done(outcomes: Sequence[Outcome], targets: Sequence[Target]) -> bool:
    """Whether every required target has the file."""
    required = {target.name for target in targets if target.required}
    return required <= {one.target for one in outcomes if one.delivered}


def _deliver(
    file: Path,
    target: Target,
    earlier: Sequence[Attempt],
    on_attempt: OnAttempt,
    resend: bool,
) -> Outcome:
    mine = [one for one in earlier if one.target == target.name]
    for one in mine:
        if one.code == "delivered":
            return Outcome(target.name, one.node, "already_there", "It was delivered.")
    if isinstance(target, FolderTarget):
        return place(file, target, mine, on_attempt)
    if isinstance(target, NodeTarget):
        return _send(file, target, mine, on_attempt, resend)
    return _stow(file, target, mine, on_attempt)


def _send(
    file: Path,
    target: NodeTarget,
    mine: Sequence[Attempt],
    on_attempt: OnAttempt,
    resend: bool,
) -> Outcome:
    instance = dcmread(file, stop_before_pixels=True)
    latest = {one.node: one.code for one in mine}
    open_ = {name for name, code in latest.items() if code == "sending"}
    last = Outcome(target.name, "", "no_node", "The target names no node.")
    # A node whose answer was lost comes first: it alone knows.
    by_turn = sorted(target.nodes, key=lambda n: (n.name not in open_, n.priority))
    for node in by_turn:
        try:
            held = nodes.holds(node, instance)
            if held:
                on_attempt(Attempt(target.name, node.name, "delivered"))
                return Outcome(target.name, node.name, "already_there", "It has it.")
        except NodeError as err:
            last = Outcome(target.name, node.name, err.code, str(err))
            if node.name in open_:
                return _unanswered(target, node)
            continue
        if node.name in open_ and held is None and not resend:
            return _unknown(target, node)
        on_attempt(Attempt(target.name, node.name, "sending"))
        try:
            status = nodes.store(node, file)
        except NodeError as err:
            if err.sent or (node.name in open_ and err.code not in _SAYS_NO):
                again = resend or node.can_find
                return (_unanswered if again else _unknown)(target, node)
            on_attempt(Attempt(target.name, node.name, "not_sent"))
            last = Outcome(target.name, node.name, err.code, str(err))
            continue
        on_attempt(Attempt(target.name, node.name, "delivered"))
        if status == nodes.DUPLICATE:
            return Outcome(target.name, node.name, "already_there", "It has it.")
        text = "The node has it." if not status else f"The node warned: {status:04X}H."
        return Outcome(target.name, node.name, "delivered", text)
    return last


# What a node answers to the object itself: then it has none of it from before either.
_SAYS_NO = frozenset({"refused", "no_space"})


def _unknown(target: NodeTarget, node: Node) -> Outcome:
    text = (
        "It was sent and not answered: look at this node whether it is there, then say "
        "so here."
    )
    return Outcome(target.name, node.name, "unknown", text)


def _unanswered(target: NodeTarget | WebTarget, node: Node | None = None) -> Outcome:
    name = node.name if node is not None else target.name
    text = "It was sent and not answered; the target is asked again."
    return Outcome(target.name, name, "unanswered", text)


def _stow(
    file: Path, target: WebTarget, mine: Sequence[Attempt], on_attempt: OnAttempt
) -> Outcome:
    instance = dcmread(file, stop_before_pixels=True)
    uids = (
        str(instance.StudyInstanceUID),
        str(instance.SeriesInstanceUID),
        str(instance.SOPInstanceUID),
    )
    sent = any(one.code == "sending" for one in mine)
    with DicomWeb(target.server) as web:
        try:
            if web.holds(*uids):
                on_attempt(Attempt(target.name, target.name, "delivered"))
                return Outcome(target.name, target.name, "already_there", "It has it.")
            on_attempt(Attempt(target.name, target.name, "sending"))
            sent = True
            web.store(file, uids[0])
            # Some servers answer before others can find it; a later look tells.
            found = web.holds(*uids)
        except PeerError as err:
            if sent and err.code == "unreachable":
                return _unanswered(target)
            return Outcome(target.name, target.name, err.code, str(err))
    if not found:
        return _unanswered(target)
    on_attempt(Attempt(target.name, target.name, "delivered"))
    return Outcome(target.name, target.name, "delivered", "The server has it.")


def checksum(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
