"""Calls to the pathology server (IA-API callbacks), and what their failures mean.

A `Transport` is made once per process: it holds the connections, the certificates and
the time limits. A `PathologyServer` is one callback address with one token, as an
invocation brought them. What comes back is turned into values where this service
uses it; results stay the JSON that they are, because unknown members have to survive
being read and written back.

Nothing here writes a token, a name or a body to the log.
"""

from __future__ import annotations

import json
import logging
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from services.ia_api import versions
from services.ia_api.errors import (
    CallbackError,
    Conflict,
    Gone,
    Permanent,
    Transient,
    Truncated,
    Unauthorized,
)
from services.ia_api.slide_info import SlideInfo, slide_info
from services.ia_api.versions import Version

log = logging.getLogger("theatrum.ia_api")

Json = dict[str, Any]  # Any: JSON as the server sent it

TRY_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
JSON_BYTES = 32 << 20
"""The largest JSON answer that is read: a gallery of 50 000 patches takes 5 MB."""


@dataclass(frozen=True)
class Callback:
    """Where one invocation may call back to, and as whom."""

    url: str
    application_id: str
    token: str = field(repr=False)

    @property
    def base(self) -> str:
        """The address without the slash that some servers put at its end."""
        return self.url.rstrip("/")


@dataclass(frozen=True)
class Credentials:
    """A user of the pathology server that may ask for tokens (client credentials)."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class TransportSettings:
    """How the pathology server is reached."""

    software_version: str
    """What we call ourselves in `X-Sectra-SoftwareVersion`."""
    ca_bundle: Path | None = None
    """Certificates to trust besides the system's; None trusts only those."""
    verify: bool = True
    """False trusts any certificate: only for a test, and the log says so."""
    connect_timeout_s: float = 6.0
    """For a connection; a webhook's answer waits for it."""
    read_timeout_s: float = 30.0
    """Between two pieces of an answer, not for the whole of it."""
    rewrites: Mapping[str, str] = field(default_factory=dict)
    """Beginnings of callback addresses and what to call instead, e.g. http by https."""
    credentials: Credentials | None = None
    """With them an expired token is replaced; without them the job waits."""


class Transport:
    """The connections to pathology servers; safe to share between threads."""

    def __init__(self, settings: TransportSettings) -> None:
        self.settings = settings
        if not settings.verify:
            log.warning(
                "certificates of the pathology server are not checked: "
                "name its certificate in ca_bundle instead"
            )
        self.http = httpx.Client(
            verify=_trust(settings),
            follow_redirects=False,
            timeout=httpx.Timeout(
                settings.read_timeout_s, connect=settings.connect_timeout_s
            ),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=32),
            trust_env=False,
        )
        self._lock = threading.Lock()
        self._renewed: dict[tuple[str, str], tuple[str, float]] = {}

    def close(self) -> None:
        self.http.close()

    def address(self, callback: Callback) -> str:
        """The callback address to use, after the rewrites of the settings."""
        for beginning, instead in self.settings.rewrites.items():
            if callback.base.startswith(beginning):
                return instead + callback.base[len(beginning) :]
        return callback.base

    def token(self, callback: Callback) -> str:
        """The newest token known for a callback: a renewed one outlives the first."""
        kept = self._renewed.get((callback.base, callback.application_id))
        return kept[0] if kept and kept[1] > time.monotonic() else callback.token

    def renew(self, callback: Callback, refused: str) -> bool:
        """Get a token by the credentials after `refused` was; False without any.

        Threads that were refused together renew once.
        """
        credentials = self.settings.credentials
        if credentials is None:
            return False
        with self._lock:
            if self.token(callback) != refused:
                return True
            try:
                answer = self.http.post(
                    f"{self.address(callback)}/token",
                    params={"applicationId": callback.application_id},
                    auth=(credentials.user, credentials.password),
                    data={"grant_type": "client_credentials"},
                )
            except httpx.HTTPError as err:
                raise _unreachable(err) from err
            if not answer.is_success:
                raise Unauthorized("the credentials of the settings give no token")
            try:
                granted = _json(answer)
                token = str(granted["access_token"])
                lifetime_s = float(granted.get("expires_in") or 3600)
            except (AttributeError, KeyError, TypeError, ValueError) as err:
                raise Permanent("the server's answer holds no token") from err
            # Renewed a little early, as the server's own client does.
            until = time.monotonic() + lifetime_s - min(60.0, lifetime_s / 2)
            key = (callback.base, callback.application_id)
            self._renewed[key] = (token, until)
            return True


def _trust(settings: TransportSettings) -> ssl.SSLContext | bool:
    if not settings.verify:
        return False
    context = ssl.create_default_context()
    if settings.ca_bundle is not None:
        context.load_verify_locations(cafile=str(settings.ca_bundle))
    return context


class PathologyServer:
    """The callback API (section numbers of the interface's description, 4.1 to 4.11).

    Every method raises a `CallbackError`; what becomes of a job follows from its class.
    """

    def __init__(
        self,
        transport: Transport,
        callback: Callback,
        api_version: Version = versions.OLDEST,
    ) -> None:
        self.transport = transport
        self.callback = callback
        self.api_version = api_version

    def info(self) -> Version | None:
        """The version that the server speaks; None if it has no such address."""
        try:
            said = self._json("GET", "/info")
        except Gone:
            return None
        try:
            return versions.parse(str(said["apiVersion"]))
        except (KeyError, ValueError) as err:
            raise Permanent("the server does not say which version it speaks") from err

    def slide(
        self, slide_id: str, *, extended: bool = False, phi: bool = False
    ) -> SlideInfo:
        """What the server knows of a slide; patient data only where `phi` asks."""
        asked = {"scope": "extended"} if extended else {}
        if phi:
            asked["includePHI"] = "true"
        said = self._json("GET", f"/slides/{_name(slide_id)}/info", params=asked)
        return slide_info(said)

    def case_of(self, slide_id: str) -> list[Json]:
        """The images of the case that owns a slide; from version 1.9."""
        self._from(versions.CASES, "the images of a case")
        return self._list("GET", f"/slides/{_name(slide_id)}/request/images/info")

    def label(self, slide_id: str) -> bytes | None:
        """The picture of the slide's label, which can show names; None without one."""
        with self._answer("GET", f"/slides/{_name(slide_id)}/label") as answer:
            return _read(answer) or None if answer.status_code != 204 else None

    def tile(
        self,
        slide_id: str,
        level: int,
        column: int,
        row: int,
        *,
        extension: str = "jpg",
        focal_plane: str | None = None,
        optical_path: str | None = None,
    ) -> bytes | None:
        """One Deep Zoom tile, encoded; None where there is none at this place.

        Levels count from 1 by 1 pixel upwards; tiles do not overlap.
        """
        plane = "" if focal_plane is None else f"_{_name(focal_plane)}"
        path = (
            f"/images/{_name(slide_id)}_files/{level}/{column}_{row}{plane}.{extension}"
        )
        asked = {} if optical_path is None else {"opticalPath": optical_path}
        try:
            with self._answer("GET", path, params=asked) as answer:
                return _read(answer) or None
        except Gone:
            return None

    @contextmanager
    def files(
        self, slide_id: str, headers: Mapping[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        """The slide's own files as one answer to be streamed (see `download`)."""
        accepted = {"Accept": "multipart/related, application/octet-stream, */*"}
        path = f"/slides/{_name(slide_id)}/files"
        with self._answer(
            "GET", path, headers=accepted | dict(headers or {})
        ) as answer:
            yield answer

    def results_of(self, slide_id: str) -> list[Json]:
        """This app's results on a slide, oldest first."""
        return self._list("GET", f"{self._results}/slide/{_name(slide_id)}")

    def result(self, result_id: int) -> Json:
        """One stored result; Gone if a person deleted it."""
        return _stored(self._json("GET", f"{self._results}/{result_id}"))

    def create_result(self, result: Json) -> Json:
        """Store a new result and return it with its id and version.

        After a Transient error it may be stored all the same: look with `find_own`.
        """
        return _stored(self._json("POST", self._results, json=result))

    def update_result(self, result: Json) -> Json:
        """Replace the result whose id and versionId `result` bears.

        Raises Conflict where it was changed meanwhile, Gone where it was deleted.
        """
        path = f"{self._results}/{result['id']}"
        try:
            return _stored(self._json("PUT", path, json=result))
        except _Refused as err:
            # Which status tells of a stale version is not public; 400 may.
            if err.status == 400:
                stored = self.result(result["id"])
                if stored.get("versionId") != result.get("versionId"):
                    raise Conflict("the result was changed meanwhile") from err
            raise

    def set_quality(
        self, slide: SlideInfo, status: str, application_version: str
    ) -> None:
        """Write a slide's quality control; from version 1.10, where the slide has one.

        `status` is `NotSet`, `QualityOk` or `Rejected`.
        """
        self._from(versions.QUALITY_CONTROL, "quality control")
        if slide.quality_version is None:
            raise Permanent("the server keeps no quality control for this slide")
        body = {
            "applicationVersion": application_version,
            "qualityControl": {"status": status, "versionId": slide.quality_version},
        }
        path = f"/slides/{_name(slide.id)}/qualityControl"
        with self._answer("PUT", path, json=body) as answer:
            _read(answer)

    def attachment(self, result_id: int, name: str) -> bytes:
        """A file that was stored with a result."""
        path = f"{self._results}/{result_id}/attachments"
        with self._answer("GET", path, params={"name": name}) as answer:
            return _read(answer)

    def application(self) -> Json:
        """What the server has registered under our id."""
        return self._json("GET", f"/applications/{self._application}")

    @property
    def _application(self) -> str:
        return _name(self.callback.application_id)

    @property
    def _results(self) -> str:
        return f"/applications/{self._application}/results"

    def _from(self, version: Version, what: str) -> None:
        if self.api_version < version:
            raise Permanent(f"{what} needs version {version} of the server's interface")

    # Any: httpx's own arguments are passed on
    def _json(self, method: str, path: str, **arguments: Any) -> Json:
        with self._answer(method, path, **arguments) as answer:
            said = _json(answer)
        if not isinstance(said, dict):
            raise Permanent("the server's answer is not what the interface says")
        return said

    def _list(self, method: str, path: str) -> list[Json]:
        with self._answer(method, path) as answer:
            said = _json(answer)
        if not isinstance(said, list):
            raise Permanent("the server's answer is not what the interface says")
        return [one for one in said if isinstance(one, dict)]

    @contextmanager
    def _answer(
        self, method: str, path: str, **arguments: Any
    ) -> Iterator[httpx.Response]:
        """A good answer, not yet read; once with a new token where ours is refused."""
        token = self.transport.token(self.callback)
        with self._sent(method, path, token, arguments) as answer:
            if answer.status_code not in {401, 403}:
                _raise_for(answer)
                with _broken_off():
                    yield answer
                return
        if not self.transport.renew(self.callback, token):
            raise Unauthorized("the server no longer takes the token of this job")
        token = self.transport.token(self.callback)
        with self._sent(method, path, token, arguments) as answer:
            _raise_for(answer)
            with _broken_off():
                yield answer

    @contextmanager
    def _sent(
        self, method: str, path: str, token: str, arguments: dict[str, Any]
    ) -> Iterator[httpx.Response]:
        headers = {
            "Authorization": f"Bearer {token}",
            "X-Sectra-ApiVersion": str(self.api_version),
            "X-Sectra-SoftwareVersion": self.transport.settings.software_version,
            **arguments.get("headers", {}),
        }
        request = self.transport.http.build_request(
            method,
            f"{self.transport.address(self.callback)}{path}",
            **{**arguments, "headers": headers},
        )
        try:
            answer = self.transport.http.send(request, stream=True)
        except httpx.HTTPError as err:
            raise _unreachable(err) from err
        try:
            yield answer
        finally:
            answer.close()


class _Refused(Permanent):
    """A status of the 400s; `status` is it."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def find_own(results: list[Json], job_id: str) -> Json | None:
    """The newest of these results that this job stored, by what it noted in it."""
    for result in reversed(results):
        context = (result.get("data") or {}).get("context") or {}
        if isinstance(context, dict) and context.get("jobId") == job_id:
            return result
    return None


def _stored(said: Json) -> Json:
    """A stored result; Permanent where it lacks what it is found and changed by."""
    number = said.get("id")
    if not isinstance(number, int) or not said.get("versionId"):
        raise Permanent("the server's stored result has no id and version")
    return said


def _name(text: str) -> str:
    """A value as one segment of a path: accession numbers can hold slashes."""
    if text in {"", ".", ".."}:
        raise Permanent("the server named something by a path instead of a name")
    return quote(text, safe="")


@contextmanager
def _broken_off() -> Iterator[None]:
    try:
        yield
    except (httpx.RemoteProtocolError, httpx.ReadError) as err:
        raise Truncated("the answer of the server was cut off") from err
    except httpx.HTTPError as err:
        raise _unreachable(err) from err


def _unreachable(err: httpx.HTTPError) -> CallbackError:
    if isinstance(err, httpx.UnsupportedProtocol | httpx.InvalidURL):
        return Permanent("the callback address is none that can be called")
    if "CERTIFICATE_VERIFY_FAILED" in str(err):
        # It will not be trusted at the next try either: a person has to act.
        return Permanent(
            "the pathology server's certificate is not trusted: "
            "name its authority in ca_bundle"
        )
    # The class says enough, and the message can hold the address.
    return Transient(f"the pathology server cannot be reached ({type(err).__name__})")


def _raise_for(answer: httpx.Response) -> None:
    """Raise the error that a status stands for (section 7 of the description)."""
    status = answer.status_code
    if 200 <= status < 300:
        return
    if status in {401, 403}:
        raise Unauthorized("the server refuses the token of this job")
    if status in {404, 410}:
        raise Gone("the server no longer has what was asked for")
    if status in {409, 412}:
        raise Conflict("the result was changed meanwhile")
    if status in TRY_LATER or status >= 500:
        wait_s = retry_after_s(answer.headers.get("Retry-After"))
        raise Transient(f"the pathology server answered {status}", wait_s)
    raise _Refused(f"the pathology server answered {status}", status)


def retry_after_s(value: str | None) -> float | None:
    """The seconds that a Retry-After header asks for (RFC 9110, clause 10.2.3)."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _read(answer: httpx.Response) -> bytes:
    """The body, refused while it comes where it is too large."""
    body = bytearray()
    for chunk in answer.iter_bytes():
        body += chunk
        if len(body) > JSON_BYTES:
            raise Permanent("the server's answer is larger than any that is expected")
    return bytes(body)


def _json(answer: httpx.Response) -> Any:  # Any: JSON
    try:
        body = answer.content if answer.is_closed else _read(answer)
        return json.loads(body)
    except ValueError as err:
        raise Permanent("the server's answer is no JSON") from err
