"""The storage service: who may send what, and when a sender is told that it is kept.

An instance is answered with success when it lies synced on disk and the caller has
taken note of it, not before; a sender that hears nothing, or something else, sends
again, and that is harmless. What cannot be kept is refused by the status that says why,
and the association goes on.

pynetdicom does the protocol, one thread an association. It reads a whole message into
memory before anybody sees it; `association_server` bounds how much that may be.
"""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from secrets import token_hex
from typing import Any, cast

from pynetdicom import (
    PYNETDICOM_IMPLEMENTATION_UID,
    PYNETDICOM_IMPLEMENTATION_VERSION,
    evt,
)
from pynetdicom._handlers import (
    standard_dimse_recv_handler,
    standard_dimse_sent_handler,
    standard_pdu_recv_handler,
    standard_pdu_sent_handler,
)
from theatrum.deidentify import Refused, part10
from theatrum.deidentify.elements import Element, encode

from services.dicom_client.arrivals import Arrival
from services.dicom_client.association_server import Entity, Server
from services.dicom_client.headers import Header, Unreadable
from services.dicom_client.staging import Different, Full, Staging
from services.dicom_client.storage import (
    ALL_SYNTAXES,
    STORAGE,
    VERIFICATION,
    StorageKind,
)
from services.dicom_client.tls import ServerTls, server_context

LOG = logging.getLogger("theatrum.dicom_client")

# PS3.4 annex B.2.3 and PS3.7 annex C.
SUCCESS = 0x0000
DUPLICATE = 0x0111
OUT_OF_RESOURCES = 0xA700
MISMATCH = 0xA900
NOT_UNDERSTOOD = 0xC000

_PDU_BYTES = 1 << 17
_ABORT_S = 2.0
_REQUEST_S = 10.0
"""How long a connection may wait before it asks for an association."""


@dataclass(frozen=True)
class ScpSettings:
    """How the storage service listens."""

    host: str = "127.0.0.1"
    """The address to listen at; an empty one means all of this machine's."""
    port: int = 11112
    """0 takes a free one."""
    ae_title: str = "THEATRUM"
    """What senders must call us."""
    calling_ae_titles: tuple[str, ...] = ()
    """Who may send, by application entity title; none named means anybody."""
    networks: tuple[str, ...] = ()
    """From where, as `10.1.0.0/16` or single addresses; none named means anywhere."""
    storage: tuple[StorageKind, ...] = tuple(STORAGE)
    """What is taken. Senders of whole studies often give up where one kind is refused:
    what is not segmented is better taken, and ignored with its reason."""
    tls: ServerTls | None = None
    """With it, only TLS is spoken at this port."""
    associations: int = 20
    """How many at a time; each is a thread and may hold one object in memory."""
    largest_bytes: int = 1 << 30
    """A larger object ends its association."""
    idle_s: float = 60.0
    """An association in which nothing happens for so long is ended."""


@dataclass(frozen=True)
class AssociationFacts:
    """Who sent and how it went; nothing of a patient. Times in seconds since 1970."""

    id: str
    calling_ae_title: str
    peer: str
    """The address."""
    tls: bool
    started: float
    stored: int = 0
    refused: int = 0
    series: Mapping[str, int] = field(default_factory=dict)
    """How many instances came, by Series Instance UID."""
    ended: float | None = None
    how: str = "open"
    """`released` in order, or `aborted` by either side or by the network."""


OnInstance = Callable[[Arrival, AssociationFacts], int]
"""Takes note of an instance and returns the status for its sender (0 for success)."""
OnEnd = Callable[[AssociationFacts], None]


class StoreScp:
    """The running service, from `start` to `stop`.

    `on_instance` is called in the association's thread when the file is safe on disk;
    several associations call at once. If it raises, the sender is told to try again
    (A700H) and the file stays: it is offered again when the sender repeats it, and by
    `staging.staged()`. `on_end` is called once an association, after its last instance.
    """

    def __init__(
        self,
        settings: ScpSettings,
        staging: Staging,
        on_instance: OnInstance,
        on_end: OnEnd = lambda _facts: None,
    ) -> None:
        self.settings = settings
        self.staging = staging
        self._on_instance = on_instance
        self._on_end = on_end
        self._lock = threading.Lock()
        # By association thread; Any: pynetdicom ships no types.
        self._open: dict[Any, AssociationFacts] = {}
        self._server: Any = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is listened at."""
        return int(self._server.server_address[1])

    def open_associations(self) -> list[AssociationFacts]:
        """Those that are going on."""
        with self._lock:
            return list(self._open.values())

    def start(self) -> None:
        """Listen; raises OSError if the port or the certificate cannot be used."""
        settings = self.settings
        # At lower levels it logs UIDs.
        logging.getLogger("pynetdicom").setLevel(logging.WARNING)
        tls = None if settings.tls is None else server_context(settings.tls)
        self._server = _entity(settings).make_server(
            (settings.host, settings.port),
            ssl_context=tls,
            evt_handlers=[
                (evt.EVT_ACCEPTED, self._accepted),
                (evt.EVT_RELEASED, self._ended, ["released"]),
                (evt.EVT_ABORTED, self._ended, ["aborted"]),
                (evt.EVT_C_STORE, self._store),
                (evt.EVT_C_ECHO, lambda _event: SUCCESS),
            ],
            server_class=Server,
            limits=settings,
        )
        for event, handler in _PRINTERS:
            self._server.unbind(event, handler)
        self._server.ae._servers.append(self._server)  # its shutdown removes it
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="dicom-store-scp",
            daemon=True,
        )
        self._thread.start()

    def stop(self, grace_s: float = 10.0) -> None:
        """Take no more associations, let the open ones end, then abort what is left."""
        if self._server is None:
            return
        open_ = list(self._server.active_associations)
        self._server.shutdown()
        until = time.monotonic() + grace_s
        for one in open_:
            one.join(max(until - time.monotonic(), 0))
        left = [one for one in open_ if one.is_alive()]
        for one in left:
            one.abort()
        until = time.monotonic() + _ABORT_S
        for one in left:
            one.join(max(until - time.monotonic(), 0))
        if self._thread is not None:
            self._thread.join(5)
        self._server = None

    # Any below: events and associations of pynetdicom, which ships no types.

    def _accepted(self, event: Any) -> None:
        peer = event.assoc.requestor  # codespell:ignore requestor
        facts = AssociationFacts(
            id=token_hex(8),
            calling_ae_title=str(peer.ae_title).strip(),
            peer=str(peer.address),
            tls=self.settings.tls is not None,
            started=time.time(),
        )
        with self._lock:
            self._open[event.assoc] = facts

    def _ended(self, event: Any, how: str) -> None:
        with self._lock:
            facts = self._open.pop(event.assoc, None)
        if facts is None:
            return
        try:
            self._on_end(replace(facts, ended=time.time(), how=how))
        except Exception:  # the caller's; the association is over in any case
            LOG.exception("the end of an association could not be noted")

    def _store(self, event: Any) -> int:
        event.assoc.dul.socket.message_bytes = 0
        try:
            status, series = self._kept(event)
        except Full:
            LOG.warning("an instance was refused: there is no room for it")
            status, series = OUT_OF_RESOURCES, None
        except Different:
            status, series = DUPLICATE, None
        except Unreadable as err:
            LOG.info("an instance was refused: %s", err.code)
            refusal = MISMATCH if err.code == "mismatch" else NOT_UNDERSTOOD
            status, series = refusal, None
        except Exception:  # the sender must get an answer, whatever is wrong with us
            LOG.exception("an instance could not be kept")
            status, series = OUT_OF_RESOURCES, None
        self._count(event.assoc, status, series)
        return status

    def _kept(self, event: Any) -> tuple[int, str | None]:
        body = cast(bytes, event.encoded_dataset(include_meta=False))
        with self._lock:
            facts = self._open[event.assoc]
        self.staging.room_for(len(body))
        meta = _file_meta(
            str(event.request.AffectedSOPClassUID),
            str(event.request.AffectedSOPInstanceUID),
            str(event.context.transfer_syntax),
        )
        announced = Header(
            sop_class=str(event.context.abstract_syntax),
            sop_instance=str(event.request.AffectedSOPInstanceUID),
            study="",
            series="",
            modality="",
            expected=None,
        )
        if event.request.AffectedSOPClassUID != event.context.abstract_syntax:
            raise Unreadable("mismatch")
        try:
            part10.read(meta + body)
        except Refused as err:
            raise Unreadable(err.reason) from err
        arrival = self.staging.keep((meta, body), announced)
        return self._on_instance(arrival, facts), arrival.header.series

    def _count(self, association: Any, status: int, series: str | None) -> None:
        with self._lock:
            facts = self._open.get(association)
            if facts is None:
                return
            counts = dict(facts.series)
            if status == SUCCESS and series is not None:
                counts[series] = counts.get(series, 0) + 1
            self._open[association] = replace(
                facts,
                stored=facts.stored + (status == SUCCESS),
                refused=facts.refused + (status != SUCCESS),
                series=counts,
            )


def _file_meta(sop_class: str, sop_instance: str, syntax: str) -> bytes:
    """What stands before a data set in a file (PS3.10 section 7.1)."""
    meta = [
        Element(0x00020001, "OB", b"\0\1"),
        Element(0x00020002, "UI", sop_class.encode()),
        Element(0x00020003, "UI", sop_instance.encode()),
        Element(0x00020010, "UI", syntax.encode()),
        Element(0x00020012, "UI", PYNETDICOM_IMPLEMENTATION_UID.encode()),
        Element(0x00020013, "SH", PYNETDICOM_IMPLEMENTATION_VERSION.encode()),
    ]
    group_2 = b"".join(encode(meta, explicit=True))
    length = Element(0x00020000, "UL", struct.pack("<L", len(group_2)))
    return b"".join((bytes(128), b"DICM", *encode([length], explicit=True), group_2))


def _entity(settings: ScpSettings) -> Any:  # Any: pynetdicom ships no types
    entity = Entity(ae_title=settings.ae_title)
    entity.require_called_aet = True
    entity.require_calling_aet = list(settings.calling_ae_titles)
    entity.maximum_associations = settings.associations
    entity.maximum_pdu_size = _PDU_BYTES
    entity.network_timeout = settings.idle_s
    entity.acse_timeout = min(settings.idle_s, _REQUEST_S)
    entity.dimse_timeout = settings.idle_s
    entity.add_supported_context(VERIFICATION)
    for kind in settings.storage:
        for sop_class in STORAGE[kind]:
            entity.add_supported_context(sop_class, list(ALL_SYNTAXES))
    return entity


# They print what passes: UIDs, and at the lowest level whole messages.
_PRINTERS = (
    (evt.EVT_DIMSE_RECV, standard_dimse_recv_handler),
    (evt.EVT_DIMSE_SENT, standard_dimse_sent_handler),
    (evt.EVT_PDU_RECV, standard_pdu_recv_handler),
    (evt.EVT_PDU_SENT, standard_pdu_sent_handler),
)
