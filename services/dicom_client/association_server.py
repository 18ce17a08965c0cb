"""The accepting half of pynetdicom, made fit for strangers.

Four things are added: addresses are looked at before anything is read; TLS shakes
hands in the peer's own thread, with a time limit; what one message may weigh is
bounded where its bytes come in, since a message is handed on only when it is complete
and a peer may announce four gigabytes for a single piece; and an association's threads
wait for one another instead of polling (`association_waiting`).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Any, Protocol, cast

from pynetdicom import AE
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from services.dicom_client.association_waiting import wait_instead_of_asking

HANDSHAKE_S = 10.0
_OVERHEAD_BYTES = 1 << 20
"""Requests and commands beside the data set; real ones have a few kilobytes."""
_SPARE_CONNECTIONS = 10
"""More than may associate, so that the last ones hear that there are too many."""


class Limits(Protocol):
    """What of the settings counts here."""

    @property
    def networks(self) -> Sequence[str]: ...
    @property
    def largest_bytes(self) -> int: ...
    @property
    def associations(self) -> int: ...
    @property
    def idle_s(self) -> float: ...


class TooLarge(OSError):
    """A message weighs more than it may; the connection is closed."""


def is_allowed(address: str, networks: Sequence[str]) -> bool:
    """Whether an address lies in one of the networks; no networks allow all."""
    if not networks:
        return True
    peer = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped is not None:
        peer = peer.ipv4_mapped
    return any(peer in ipaddress.ip_network(one, strict=False) for one in networks)


# Any below: pynetdicom and socketserver hand over untyped things.


def _connected(associations: list[Any]) -> list[Any]:
    # Who hung up without a word is a thread for some seconds yet, and no load.
    return [one for one in associations if one.dul.socket.socket is not None]


class Entity(AE):
    """Counts as active only who is still connected; see `maximum_associations`."""

    @property
    def active_associations(self) -> list[Any]:
        """Associations, and connections that may become one."""
        return _connected(super().active_associations)


class Server(ThreadedAssociationServer):
    """Accepts connections; see the module."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *args: Any, limits: Limits, **kwargs: Any) -> None:
        self.limits = limits
        kwargs["request_handler"] = _Handler
        super().__init__(*args, **kwargs)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept, and speak TLS, but not yet."""
        listening = cast(socket.socket, self.socket)
        accepted, address = listening.accept()
        # Answers are small: held back, each would wait for the peer's delayed ACK.
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.ssl_context is not None:
            accepted = self.ssl_context.wrap_socket(
                accepted, server_side=True, do_handshake_on_connect=False
            )
        return accepted, address

    def verify_request(self, _request: Any, client_address: Any) -> bool:
        """Refuse strangers, and floods, before anything is read."""
        if not is_allowed(str(client_address[0]), self.limits.networks):
            return False
        most = self.limits.associations + _SPARE_CONNECTIONS
        return len(_connected(self.active_associations)) < most

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Shake hands and hand over; in the peer's own thread."""
        try:
            if self.ssl_context is not None:
                request.settimeout(HANDSHAKE_S)
                request.do_handshake()
            request.settimeout(self.limits.idle_s)
        except OSError:  # the peer speaks no TLS, or not ours
            self.shutdown_request(request)
            return
        super().process_request_thread(request, client_address)

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        """Say nothing: the base class prints to standard error."""


class _Handler(RequestHandler):
    """Makes the association of a connection."""

    def _create_association(self) -> Any:
        association = super()._create_association()
        limits = cast(Server, self.server).limits
        bound(association.dul.socket, limits.largest_bytes + _OVERHEAD_BYTES)
        wait_instead_of_asking(association)
        return association


def bound(connection: Any, most_bytes: int) -> None:
    """Let a connection of pynetdicom read so much and no more between two messages.

    `connection.message_bytes` counts; whoever handles a message sets it to 0.
    """
    connection.message_bytes = 0

    def recv(wanted: int) -> bytearray:
        connection.message_bytes += wanted
        if connection.message_bytes > most_bytes:
            raise TooLarge("a message weighs more than it may")
        return _read(connection.socket, wanted)

    connection.recv = recv


def _read(source: Any, wanted: int) -> bytearray:
    """So many bytes, or fewer at the end of the connection."""
    # Grows with what arrives, not with what was announced.
    read = bytearray()
    while len(read) < wanted:
        piece = source.recv(min(wanted - len(read), 1 << 16))
        if not piece:
            break
        read += piece
    return read
