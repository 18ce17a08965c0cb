"""DICOM nodes: to whom we send, whether they answer, and what they already hold.

A node is asked over an association of its own each time, with or without TLS. What may
go wrong is told by a short code, because it decides what happens next: as long as
nothing was sent, another node may be tried; once something was, only the node itself
knows whether it has it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import UID
from pynetdicom import AE

from services.dicom_client.storage import STUDY_ROOT_FIND, UNCOMPRESSED, VERIFICATION
from services.dicom_client.tls import ClientTls, client_context

SUCCESS = 0x0000
DUPLICATE = 0x0111
"""The node holds an object of this UID already."""
_WARNINGS = (0x0001, 0x0107, 0x0116)
_PENDING = (0xFF00, 0xFF01)
_TITLE_BYTES = 16


@dataclass(frozen=True)
class Node:
    """One application entity elsewhere."""

    name: str
    """What people call it; also in logs and outcomes."""
    host: str
    port: int
    ae_title: str
    calling_ae_title: str = "THEATRUM"
    """What we call ourselves to it."""
    priority: int = 0
    """Lower ones are tried first."""
    tls: ClientTls | None = None
    can_find: bool = False
    """It answers C-FIND at image level, so that it can be asked what it holds."""
    connect_s: float = 10.0
    timeout_s: float = 60.0
    """For an answer; larger values wait longer for slow archives."""


class NodeError(Exception):
    """A node did not do what was asked; `sent` tells whether it may have it."""

    def __init__(self, code: str, text: str, *, sent: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.sent = sent


@dataclass(frozen=True)
class Echo:
    """What a C-ECHO gave."""

    ok: bool
    code: str
    """`ok`, `unreachable`, `rejected`, `tls`, `no_context` or `failed`."""
    text: str
    took_s: float


def echo(node: Node) -> Echo:
    """Ask whether the node is there and talks to us; never raises for its faults."""
    started = time.monotonic()
    try:
        with _associated(node, [(VERIFICATION, UNCOMPRESSED)]) as association:
            status = association.send_c_echo()
        if "Status" not in status:
            raise NodeError("failed", "The node ended the association.")
        if status.Status != SUCCESS:
            raise NodeError("failed", f"The node answered {status.Status:04X}H.")
    except NodeError as err:
        return Echo(False, err.code, str(err), time.monotonic() - started)
    return Echo(True, "ok", "The node answered.", time.monotonic() - started)


def store(node: Node, file: Path) -> int:
    """Send a file and return the node's status: success, a warning, or `DUPLICATE`.

    Raises
    ------
    NodeError
        With `sent` false the node certainly does not have it: `unreachable`, `tls`,
        `rejected`, `no_context`, `no_space`, `refused`. With `sent` true
        (`no_answer`) it may have it.
    """
    dataset = dcmread(file)
    syntax = dataset.file_meta.TransferSyntaxUID
    offered = [UID(syntax), *UNCOMPRESSED] if syntax in UNCOMPRESSED else [UID(syntax)]
    # One context a syntax: the node may pick any that it can read.
    contexts = [(dataset.SOPClassUID, (one,)) for one in dict.fromkeys(offered)]
    with _associated(node, contexts) as association:
        try:
            answer = association.send_c_store(dataset)
        except ValueError as err:
            raise NodeError(
                "no_context", "The node does not take objects of this kind."
            ) from err
        except RuntimeError as err:  # the association ended before anything was sent
            raise NodeError("unreachable", "The node ended the association.") from err
        if "Status" not in answer:
            raise NodeError(
                "no_answer", "The node did not answer to what was sent.", sent=True
            )
        status = int(answer.Status)
    if status in (SUCCESS, DUPLICATE, *_WARNINGS) or status >> 12 == 0xB:
        return status
    code = "no_space" if status >> 8 == 0xA7 else "refused"
    raise NodeError(code, f"The node answered {status:04X}H.")


def holds(node: Node, instance: Dataset) -> bool | None:
    """Whether the node says that it holds an instance; None where it cannot say.

    Raises
    ------
    NodeError
        The node cannot be reached.
    """
    if not node.can_find:
        return None
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.StudyInstanceUID = instance.StudyInstanceUID
    query.SeriesInstanceUID = instance.SeriesInstanceUID
    query.SOPInstanceUID = instance.SOPInstanceUID
    with _associated(node, [(STUDY_ROOT_FIND, UNCOMPRESSED)]) as association:
        answers = association.send_c_find(query, STUDY_ROOT_FIND)
        found = False
        for status, match in answers:
            if "Status" not in status:
                return None
            if status.Status in _PENDING:
                uid = None if match is None else match.get("SOPInstanceUID")
                found = found or uid == instance.SOPInstanceUID
            elif status.Status != SUCCESS:
                return None
    return found


@contextmanager
def _associated(
    node: Node, contexts: Sequence[tuple[UID, Sequence[UID]]]
) -> Iterator[Any]:  # Any: pynetdicom ships no types
    entity = AE(ae_title=node.calling_ae_title[:_TITLE_BYTES])
    entity.connection_timeout = node.connect_s
    entity.acse_timeout = node.timeout_s
    entity.dimse_timeout = node.timeout_s
    entity.network_timeout = node.timeout_s
    for abstract, syntaxes in contexts:
        entity.add_requested_context(abstract, list(syntaxes))
    tls = None
    if node.tls is not None:
        try:
            tls = (client_context(node.tls), node.host)
        except OSError as err:
            raise NodeError("tls", "The TLS files of the node are unusable.") from err
    association = entity.associate(
        node.host, node.port, ae_title=node.ae_title[:_TITLE_BYTES], tls_args=tls
    )
    if not association.is_established:
        raise _why_not(node, association)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


# PS3.8 table 9-21: by source and reason.
_REJECTIONS = {
    (1, 2): "it does not support DICOM's application context",
    (1, 3): "it does not know the title that we call ourselves by",
    (1, 7): "it has another title than the one we call it by",
    (3, 1): "it is busy",
    (3, 2): "it has too many associations",
}


def _why_not(node: Node, association: Any) -> NodeError:
    if association.is_rejected:
        answer = association.acceptor.primitive
        why = _REJECTIONS.get(
            (answer.result_source, answer.diagnostic), "it says not why"
        )
        return NodeError("rejected", f"The node rejects us: {why}.")
    if association.rejected_contexts:
        return NodeError("no_context", "The node does not take objects of this kind.")
    if node.tls is not None and _listens(node):
        return NodeError("tls", "The node is there, but TLS fails: check certificates.")
    return NodeError("unreachable", "The node cannot be reached.")


def _listens(node: Node) -> bool:
    try:
        socket.create_connection((node.host, node.port), node.connect_s).close()
    except OSError:
        return False
    return True
