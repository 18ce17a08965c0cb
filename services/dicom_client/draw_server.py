"""The contract of the DRAW segmentation server, as both of its older clients speak it.

A package (zip) goes up with its SHA-256 and gets a token; the token is asked for its
status until the structure set is ready; that comes down with its own SHA-256; and only
when it is safe with us is the server told, which then deletes everything. Two ways of
renewing an access token are in use, and several spellings of every status: all are
understood here.

The server's answers are read tolerantly and never repeated in logs: a status text or
an error message can hold anything.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Literal
from urllib.parse import urlsplit

import httpx

from services.dicom_client.errors import (
    BadDownload,
    BadRequest,
    EngineError,
    NotReady,
    Refused,
    Transient,
    Unanswered,
    Unauthorized,
    UnknownTask,
)

TRY_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
ANSWER_BYTES = 8 << 20
"""The largest JSON answer that is read; the list of models has some 100 kB."""
RESULT_BYTES = 512 << 20
"""The largest structure set that is taken."""
ANSWER_S = 120.0
"""How long a JSON answer may take, however slowly its bytes come."""
RESULT_S = 3600.0
"""The same for a structure set."""
CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class Endpoints:
    """Paths below the base address; `{task}` stands for the token of an upload.

    A slash at the end matters to the server.
    """

    health: str = "api/health/"
    models: str = "api/models/"
    upload: str = "api/upload/"
    status: str = "api/upload/{task}/status/"
    result: str = "api/rtstruct/{task}/"
    confirm: str = "api/rtstruct/{task}/confirm/"
    refresh_v1: str = "auth/refresh"
    refresh_v2: str = "api/token/refresh/"


@dataclass(frozen=True)
class DrawSettings:
    """Where the server is and how it is reached."""

    base_url: str
    """`https://...`; plain http is taken only for this machine."""
    client_id: str = ""
    """What the server calls us; sent with every package if set."""
    endpoints: Endpoints = Endpoints()
    refresh: Literal["v1", "v2", "auto"] = "auto"
    """How an access token is renewed: `auto` tries the newer way, then the older."""
    proxy: str | None = None
    """A proxy to go through; None takes none, whatever the environment says."""
    ca_bundle: Path | None = None
    """Certificates to trust besides the system's."""
    timeout_s: float = 60.0
    """Between two pieces of an answer."""
    upload_timeout_s: float = 300.0
    """For the answer to a package after its last byte."""


@dataclass(frozen=True)
class Tokens:
    """An access token, its refresh token, and when the access token ends."""

    access: str = field(repr=False)
    refresh: str | None = field(default=None, repr=False)
    expires: datetime | None = None


class Progress(StrEnum):
    """What a status means for us."""

    WORKING = "working"
    READY = "ready"
    FAILED = "failed"
    GONE = "gone"
    """Delivered before and deleted there."""


def progress_of(status: str) -> Progress:
    """What a status text means, however it is written; unknown ones mean working."""
    text = re.sub(r"[\s_-]+", " ", status).strip().upper()
    if re.fullmatch(r"SEGMENTATION (COMPLETE|COMPLETED|RETRIEVED)", text):
        return Progress.READY
    if re.match(r"DELIVERED|TRANSFER COMPLETE", text):
        return Progress.GONE
    if "FAIL" in text or "ERROR" in text:
        return Progress.FAILED
    return Progress.WORKING


def percent_of(status: str) -> int:
    """How far a server says that it is, 1 to 99; 0 where it says nothing of it."""
    found = re.search(r"(?<![\d.])(\d{1,3})(\.\d+)? ?%", status)
    return min(99, int(found[1])) if found else 0


@dataclass(frozen=True)
class Download:
    """A structure set on our disk."""

    path: Path
    sha256: str
    verified: bool
    """Whether the server named a checksum; without one only the length is known."""


class DrawServer:
    """One server and one set of tokens; safe to share between threads.

    `keep` is called with every renewed pair of tokens, before the old one is dropped.
    """

    def __init__(
        self,
        settings: DrawSettings,
        tokens: Tokens,
        keep: Callable[[Tokens], None] = lambda _tokens: None,
    ) -> None:
        check_address(settings.base_url)
        self.settings = settings
        self._tokens = tokens
        self._keep = keep
        self._lock = threading.Lock()
        context = ssl.create_default_context()
        if settings.ca_bundle is not None:
            context.load_verify_locations(cafile=str(settings.ca_bundle))
        self._http = httpx.Client(
            base_url=settings.base_url.rstrip("/") + "/",
            verify=context,
            proxy=settings.proxy,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(settings.timeout_s, connect=10.0),
        )

    def close(self) -> None:
        self._http.close()

    def health(self) -> bool:
        """Whether the server takes packages; Transient if it cannot be reached."""
        with self._sent("GET", self.settings.endpoints.health, {}, None) as answer:
            if answer.status_code == 503:
                return False
            if answer.status_code not in {401, 403}:
                _raise_for(answer)
                return True
        # Some servers want to know who asks.
        with self._answer("GET", self.settings.endpoints.health):
            return True

    def models(self) -> Any:  # Any: JSON; see templates.models_of_server
        """The catalogue of models as the server tells it."""
        with self._answer("GET", self.settings.endpoints.models) as answer:
            return _json(answer)

    def upload(
        self,
        package: Path,
        sha256: str,
        watch: Callable[[float], None] = lambda _share: None,
        before_the_end: Callable[[], None] = lambda: None,
    ) -> str:
        """Send a package and return the token of its task.

        `watch` is told the share that was sent; `before_the_end` is called before the
        last bytes leave: until then the server cannot have the package. What either
        raises ends the transfer. After a Transient error the server may hold the
        package all the same; after Unanswered something took it, and what it said
        tells nothing.
        """
        fields = {"checksum": sha256}
        if self.settings.client_id:
            fields["client_id"] = self.settings.client_id
        with package.open("rb") as opened:
            size = package.stat().st_size
            file = _Watched(opened, size, watch, before_the_end)
            sent = {"file": (package.name, file, "application/zip")}
            timeout = httpx.Timeout(
                self.settings.timeout_s,
                connect=10.0,
                read=self.settings.upload_timeout_s,
            )
            with self._answer(
                "POST",
                self.settings.endpoints.upload,
                data=fields,
                files=sent,
                timeout=timeout,
                rewind=file.seek,
                after=_raise_if_unanswered,
            ) as answer:
                try:
                    said = _json(answer)
                except Refused as err:
                    # A page of a proxy, or a broken server: it has taken the package.
                    raise Unanswered(f"{err}: nobody knows what it took") from err
        for name in ("transaction_token", "task_id"):
            token = said.get(name) if isinstance(said, dict) else None
            if isinstance(token, str | int) and _is_token(str(token)):
                return str(token)
        raise Unanswered("the server took the package and gave no token for it")

    def status(self, task: str) -> tuple[Progress, str]:
        """How far a task is, and the server's own word for it."""
        with self._answer("GET", self._of(task, "status")) as answer:
            said = _json(answer)
        if not isinstance(said, dict):
            said = {}
        text = str(said.get("status") or "")
        # None of the servers known says how far it is; one that does is listened to.
        share = said.get("progress")
        told = f" {share:.0f} %" if isinstance(share, int | float) else ""
        return progress_of(text), f"{text[:90]}{told}"

    def download(
        self,
        task: str,
        target: Path,
        watch: Callable[[float], None] = lambda _share: None,
    ) -> Download:
        """Fetch the structure set of a task to `target`, whole or not at all.

        `watch` is told the share that came (0 where the server says no length); what
        it raises ends the transfer. Raises BadDownload where the checksum differs,
        NotReady while there is none.
        """
        digest = hashlib.sha256()
        size = 0
        end = time.monotonic() + RESULT_S
        staging = target.with_name(f".{target.name}.part")
        with self._answer("GET", self._of(task, "result")) as answer:
            length = answer.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else 0
            with staging.open("wb") as file:
                os.fchmod(file.fileno(), 0o600)
                for chunk in answer.iter_bytes(CHUNK_BYTES):
                    size += len(chunk)
                    watch(min(1.0, size / total) if total else 0.0)
                    if size > RESULT_BYTES:
                        raise BadDownload("the result is larger than any expected")
                    if time.monotonic() > end:
                        raise Transient("the result does not end")
                    file.write(chunk)
                    digest.update(chunk)
                file.flush()
                os.fsync(file.fileno())
            told = answer.headers.get("X-File-Checksum")
        found = digest.hexdigest()
        if told is not None and told.strip().lower() != found:
            staging.unlink()
            raise BadDownload("the result is not the one whose checksum was sent")
        staging.replace(target)
        return Download(target, found, verified=told is not None)

    def confirm(self, task: str) -> None:
        """Tell the server that the result is safe; it deletes all it has of the task.

        A task that it no longer knows has been confirmed before.
        """
        body = {
            "task_id": task,
            "status": "received",
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        try:
            with self._answer("POST", self._of(task, "confirm"), json=body) as answer:
                text = _read(answer).decode("utf-8", "replace")
        except UnknownTask:
            return
        if "confirmation received" not in text.lower():
            raise Transient("the server did not say that it took the confirmation")

    def _of(self, task: str, what: Literal["status", "result", "confirm"]) -> str:
        if not _is_token(task):
            raise BadRequest("this is no token of a task")
        path: str = getattr(self.settings.endpoints, what)
        return path.replace("{task}", task)

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        *,
        rewind: Callable[[int], object] = lambda _at: None,
        after: Callable[[httpx.Response], None] = lambda _answer: None,
        **arguments: Any,  # Any: httpx's own
    ) -> Iterator[httpx.Response]:
        """A good answer, not yet read; once with a renewed token if ours has ended.

        `after` looks at an answer first, and may raise what its status means here.
        """
        tokens = self._current()
        with self._sent(method, path, arguments, tokens) as answer:
            if answer.status_code != 401:
                after(answer)
                _raise_for(answer)
                with _broken_off():
                    yield answer
                return
        renewed = self._renewed(tokens)
        rewind(0)
        with self._sent(method, path, arguments, renewed) as answer:
            after(answer)
            _raise_for(answer)
            with _broken_off():
                yield answer

    @contextmanager
    def _sent(
        self, method: str, path: str, arguments: dict[str, Any], tokens: Tokens | None
    ) -> Iterator[httpx.Response]:
        headers = {} if tokens is None else {"Authorization": f"Bearer {tokens.access}"}
        request = self._http.build_request(method, path, headers=headers, **arguments)
        try:
            answer = self._http.send(request, stream=True)
        except httpx.HTTPError as err:
            raise _unreachable(err) from err
        try:
            yield answer
        finally:
            answer.close()

    def _current(self) -> Tokens:
        """The tokens to use now: renewed before they end where that is known."""
        tokens = self._tokens
        soon = datetime.now(UTC) + timedelta(seconds=30)
        if tokens.expires is None or tokens.expires > soon or tokens.refresh is None:
            return tokens
        return self._renewed(tokens)

    def _renewed(self, ended: Tokens) -> Tokens:
        """New tokens for ended ones; threads that ended together renew once."""
        with self._lock:
            if self._tokens is not ended:
                return self._tokens
            if ended.refresh is None:
                raise Unauthorized("the server refuses the token: paste a new one")
            ways = {"v1": ["v1"], "v2": ["v2"], "auto": ["v2", "v1"]}
            for way in ways[self.settings.refresh]:
                said = self._refresh(way, ended.refresh)
                if said is not None:
                    self._tokens = _tokens_of(said, ended)
                    self._keep(self._tokens)
                    return self._tokens
            raise Unauthorized("the server has no way to renew a token: paste one")

    def _refresh(self, way: str, refresh: str) -> dict[str, Any] | None:
        """Ask for new tokens in one of the two ways; None if there is no such way."""
        ends = self.settings.endpoints
        path = ends.refresh_v1 if way == "v1" else ends.refresh_v2
        body = {"json": {"client_id": self.settings.client_id}} if way == "v1" else {}
        pair = Tokens(refresh)  # the refresh token is the bearer here
        with self._sent("POST", path, body, pair) as answer:
            if answer.status_code in {404, 405}:
                return None
            if answer.status_code in {400, 401, 403}:
                raise Unauthorized("the server refuses to renew the token: paste one")
            _raise_for(answer)
            said = _json(answer)
        return said if isinstance(said, dict) and said.get("access_token") else None


class _Watched:
    """A file that tells how much of it was read; what it tells may end the reading."""

    def __init__(
        self,
        file: BinaryIO,
        size: int,
        watch: Callable[[float], None],
        before_the_end: Callable[[], None],
    ) -> None:
        self._file, self._size = file, max(size, 1)
        self._watch, self._before_the_end = watch, before_the_end

    def read(self, count: int = -1) -> bytes:
        self._watch(min(1.0, self._file.tell() / self._size))
        read = self._file.read(count)
        if read and self._file.tell() >= self._size:
            self._before_the_end()
        return read

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()


def check_address(base_url: str) -> None:
    """Refuse an address that images must not go to; BadRequest says why."""
    parts = urlsplit(base_url)
    if parts.scheme == "https" and parts.hostname and not parts.username:
        return
    if parts.scheme == "http" and _is_this_machine(parts.hostname):
        return
    raise BadRequest(
        "the server's address begins with https:// and holds no name or password"
    )


def _is_this_machine(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _is_token(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9._~-]{1,200}", text) is not None and set(text) != {
        "."
    }


def _tokens_of(said: dict[str, Any], ended: Tokens) -> Tokens:
    expires = None
    try:
        if said.get("expires_at"):
            expires = datetime.fromisoformat(str(said["expires_at"]))
            expires = expires if expires.tzinfo else expires.replace(tzinfo=UTC)
        elif said.get("expires_in"):
            lifetime = timedelta(seconds=float(said["expires_in"]))
            expires = datetime.now(UTC) + lifetime
    except (ValueError, OverflowError):
        expires = None  # then a 401 tells that it has ended
    # A server that does not rotate its refresh tokens leaves the old one in force.
    refresh = said.get("refresh_token") or ended.refresh
    renewed = None if refresh is None else str(refresh)
    return Tokens(str(said["access_token"]), renewed, expires)


@contextmanager
def _broken_off() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as err:
        raise _unreachable(err) from err


def _unreachable(err: httpx.HTTPError) -> EngineError:
    # The class says enough, and the message can hold the address.
    return Transient(
        f"the segmentation server cannot be reached ({type(err).__name__})"
    )


def _raise_for(answer: httpx.Response) -> None:
    status = answer.status_code
    if 200 <= status < 300:
        return
    if status in {401, 403}:
        raise Unauthorized("the server refuses the token: paste a new one")
    if status == 404:
        raise UnknownTask("the server does not know this task")
    if status == 409:
        raise NotReady("the result is not ready yet")
    if status in TRY_LATER or status >= 500:
        wait = answer.headers.get("Retry-After", "")
        raise Transient(
            f"the segmentation server answered {status}",
            float(wait) if wait.isdigit() else None,
        )
    raise Refused(f"the segmentation server answered {status}")


def _raise_if_unanswered(answer: httpx.Response) -> None:
    """A gateway that heard nothing from the server behind it does not know either."""
    if answer.status_code in {502, 504}:
        raise Unanswered(f"a gateway answered {answer.status_code} for the server")


def _read(answer: httpx.Response) -> bytes:
    body = bytearray()
    end = time.monotonic() + ANSWER_S
    for chunk in answer.iter_bytes():
        body += chunk
        if time.monotonic() > end:
            raise Transient("the server's answer does not end")
        if len(body) > ANSWER_BYTES:
            raise Refused("the server's answer is larger than any that is expected")
    return bytes(body)


def _json(answer: httpx.Response) -> Any:  # Any: JSON
    try:
        return json.loads(_read(answer))
    except ValueError as err:
        raise Refused("the server's answer is no JSON") from err
