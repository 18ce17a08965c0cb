"""DICOMweb (PS3.18): what a server holds, fetching from it and storing to it.

Objects go to disk and come from it in pieces, so that memory does not grow with them.
UIDs are part of DICOMweb's addresses; nothing else of a patient ever is, and no address
is logged.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx

from services.dicom_client.draw_server import check_address
from services.dicom_client.errors import PeerError
from services.dicom_client.headers import is_uid
from services.dicom_client.multipart import parts

_JSON = "application/dicom+json"
_DICOM = 'multipart/related; type="application/dicom"'
_ANSWER_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 16
_PAGE = 500

STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
MODALITY, COUNT = "00080060", "00201209"


@dataclass(frozen=True)
class DicomWebServer:
    """A server and how we come in."""

    base_url: str
    """Such as `https://pacs.hospital/dicom-web`; plain http only on this machine."""
    token: str = field(default="", repr=False)
    """A bearer token."""
    user: str = ""
    password: str = field(default="", repr=False)
    """Basic authentication, where there is no token."""
    ca_bundle: Path | None = None
    """Certificates to trust besides the system's."""
    timeout_s: float = 60.0
    """Between two pieces of an answer."""
    largest_bytes: int = 4 << 30
    """The largest object that is fetched."""


class DicomWeb:
    """A connection to one server, to be used in a `with` block by one thread."""

    def __init__(self, server: DicomWebServer) -> None:
        check_address(server.base_url)
        self.server = server
        context = ssl.create_default_context()
        if server.ca_bundle is not None:
            context.load_verify_locations(cafile=str(server.ca_bundle))
        headers = {"Accept-Encoding": "identity"}
        if server.token:
            headers["Authorization"] = f"Bearer {server.token}"
        self._http = httpx.Client(
            base_url=server.base_url.rstrip("/") + "/",
            headers=headers,
            auth=(server.user, server.password) if server.user else None,
            verify=context,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(server.timeout_s, connect=10.0),
        )

    def __enter__(self) -> DicomWeb:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._http.close()

    # Any below: DICOM JSON (PS3.18 annex F).

    def search(
        self, what: str, query: Mapping[str, str | list[str]]
    ) -> Iterator[dict[str, Any]]:
        """QIDO-RS page by page; `what` is `series`, or a path such as `studies/...`.

        A server that ignores `offset` gives the same page again; that ends it.
        """
        offset, before = 0, None
        while True:
            page = self._page(
                what, {**query, "limit": str(_PAGE), "offset": str(offset)}
            )
            if page == before:
                return
            yield from page
            if len(page) < _PAGE:
                return
            offset, before = offset + len(page), page

    def holds(self, study: str, series: str, instance: str) -> bool:
        """Whether the server finds an instance."""
        query = {"SOPInstanceUID": _uid(instance)}
        where = f"studies/{_uid(study)}/series/{_uid(series)}/instances"
        return any(value(one, INSTANCE) == instance for one in self._page(where, query))

    def fetch(self, path: str) -> Iterator[Iterator[bytes]]:
        """WADO-RS: each object of a resource as pieces of bytes.

        The pieces of one object must be taken before the next object is asked for.
        """
        accept = f"{_DICOM}; transfer-syntax=*"
        with self._sent("GET", path, headers={"Accept": accept}) as answer:
            if answer.status_code in (404, 410):
                return
            _raise_for(answer)
            kind = answer.headers.get("Content-Type", "")
            pieces = _guarded(answer.iter_bytes())
            yield from parts(kind, pieces, self.server.largest_bytes)

    def store(self, file: Path, study: str) -> None:
        """STOW-RS of one object; raises PeerError unless the server took it."""
        boundary = token_hex(16)
        answer = self._small(
            "POST",
            f"studies/{_uid(study)}",
            headers={
                "Accept": _JSON,
                "Content-Type": f"{_DICOM}; boundary={boundary}",
            },
            content=_body(file, boundary),
        )
        failed = _failed(answer.text if answer.status_code in (200, 202, 409) else "")
        if answer.status_code in (200, 202) and not failed:
            return
        if answer.status_code in (200, 202, 409):
            reasons = ", ".join(f"{one:04X}H" for one in failed) or "no reason given"
            raise PeerError(f"The server did not store it: {reasons}.", "refused")
        _raise_for(answer)

    def _page(self, what: str, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        answer = self._small("GET", what, headers={"Accept": _JSON}, params=query)
        if answer.status_code in (204, 404):
            return []
        _raise_for(answer)
        try:
            found = json.loads(answer.content or b"[]")
        except (ValueError, RecursionError) as err:
            raise PeerError("The server's list is no JSON.", "answer") from err
        if not isinstance(found, list):
            raise PeerError("The server's answer is no list.", "answer")
        return [one for one in found if isinstance(one, dict)]

    def _small(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask and read all of the answer, if it is not too long."""
        with self._sent(method, path, **more) as answer:
            read = bytearray()
            for piece in _guarded(answer.iter_bytes()):
                read += piece
                if len(read) > _ANSWER_BYTES:
                    raise PeerError("The server's answer is too long.", "answer")
            return httpx.Response(
                answer.status_code,
                headers={"Content-Type": answer.headers.get("Content-Type", "")},
                content=bytes(read),
            )

    @contextmanager
    def _sent(self, method: str, path: str, **more: Any) -> Iterator[httpx.Response]:
        try:
            with self._http.stream(method, path, **more) as answer:
                yield answer
        except httpx.TransportError as err:
            raise PeerError("The server cannot be reached.", "unreachable") from err


def value(found: Mapping[str, Any], tag: str) -> str:
    """The first value of an attribute in DICOM JSON, as text; empty if it has none."""
    attribute = found.get(tag)
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    return str(values[0]) if isinstance(values, list) and values else ""


def _uid(text: str) -> str:
    if not is_uid(text):
        raise PeerError("A UID in an address must be one.", "answer")
    return text


def _guarded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces
    except httpx.TransportError as err:
        raise PeerError("The connection was lost.", "unreachable") from err


def _body(file: Path, boundary: str) -> Iterator[bytes]:
    yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            yield chunk
    yield f"\r\n--{boundary}--\r\n".encode()


def _failed(text: str) -> list[int]:
    """Failure reasons of a STOW answer: FailedSOPSequence (0008,1198)."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return []  # XML of older servers: then QIDO tells
    items = found.get("00081198", {}) if isinstance(found, dict) else {}
    values = items.get("Value", []) if isinstance(items, dict) else []
    reasons = [value(one, "00081197") for one in values if isinstance(one, dict)]
    return [int(one) if one.isdigit() else 0 for one in reasons]


def _raise_for(answer: httpx.Response) -> None:
    status = answer.status_code
    if status < 300:
        return
    if status in (401, 403):
        raise PeerError("The server refuses our token or password.", "unauthorized")
    if status in (408, 425, 429) or status >= 500:
        raise PeerError(f"The server answered {status}; try later.", "unreachable")
    raise PeerError(f"The server answered {status}.", "refused")
