"""The server: its routes, its tasks, its tokens, and the log of what was asked."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from tests.pathology_server.faults import DropAfter, Reset, Stall, Truncate
from tests.pathology_server.wire import Reply, Request, Wire

from . import drawing, packages
from .packages import Package
from .scenario import Scenario

STATUSES = ("FILE RECEIVED", "SENT TO GPU", "SEGMENTATION STARTED")
CONFIRMED = "Transfer confirmation received, files cleaned up"

MODELS: list[dict[str, Any]] = [
    {
        "model_id": number,
        "model_name": name,
        "model_config": config,
        "model_trainer_name": "nnUNetTrainerNoMirroring",
        "model_postprocess": postprocess,
        "gpu_upload": True,
        "modelmap": [
            {
                "id": number * 100 + at,
                "mapid": at,
                "map_tg263_primary_name": structure,
                "Major_Category": "Organ",
                "Anatomic_Group": group,
                "Description": structure.replace("_", " "),
                "delineation_modality": "CT",
                "median_dice_score": 0.9,
            }
            for at, structure in enumerate(structures, start=1)
        ],
    }
    for number, name, config, postprocess, group, structures in (
        (
            720,
            "PelvisMaleOAR",
            "3d_fullres",
            None,
            "Pelvis",
            ("Bladder", "Rectum", "Femur_Head_L", "Femur_Head_R"),
        ),
        (
            650,
            "ThoraxOAR",
            "3d_lowres",
            "null",
            "Thorax",
            ("Lung_L", "Lung_R", "Heart", "Esophagus"),
        ),
        (
            301,
            "HeadNeckOAR",
            "3d_fullres",
            "postprocessing.pkl",
            "Head and neck",
            ("Glnd_Submandibular_L", "Glnd_Submandibular_R", "Parotid_L", "Parotid_R"),
        ),
    )
]


@dataclass
class Task:
    """One package that was taken."""

    token: str
    sha256: str
    package: Package = field(repr=False)
    uploads: int = 1
    polls: int = 0
    downloads: int = 0
    confirmed: int = 0
    result: bytes | None = field(default=None, repr=False)
    deleted: bool = False


@dataclass(frozen=True)
class Upload:
    """One request that brought a package, and what became of it."""

    sha256: str
    """As the sender says."""
    at: float
    """When the whole of it was here, in seconds since 1970."""
    ended: float
    status: int | None
    """What it was answered; None where the sender heard nothing."""
    taken: bool
    """Whether the server has stored the package."""


@dataclass(frozen=True)
class Logged:
    """One request; bodies are not kept."""

    method: str
    path: str
    route: str
    status: int | None


class DrawServer:
    """A segmentation server on a socket of this machine."""

    def __init__(
        self,
        scenario: Scenario | None = None,
        *,
        canaries: Iterable[str] = (),
        port: int = 0,
    ) -> None:
        self.scenario = scenario or Scenario()
        self.canaries = list(canaries)
        self.access_token = secrets.token_urlsafe(16)
        self.refresh_token = secrets.token_urlsafe(16)
        self.tasks: dict[str, Task] = {}
        self.log: list[Logged] = []
        self.uploads: list[Upload] = []
        self.leaks: list[str] = []
        self._expired = self.scenario.token_expired
        self._done: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._counting = threading.Lock()
        self._came: dict[int, tuple[str, float]] = {}
        """Of each upload that is not judged yet: its digest, and when it came."""
        self._stored = 0
        self._wire = Wire(self._answer, before=self._comes, cut=self._cut, port=port)

    def __enter__(self) -> DrawServer:
        self._wire.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._wire.__exit__(kind, error, trace)

    @property
    def url(self) -> str:
        """The base address, with the slash at its end."""
        return f"http://127.0.0.1:{self._wire.port}/"

    def script(self, **switches: Any) -> None:
        """Change the scenario from now on; counters of `..._n` begin anew."""
        with self._lock:
            self.scenario = replace(self.scenario, **switches)
            self._done.clear()
            if "token_expired" in switches:
                self._expired = bool(switches["token_expired"])

    def count(self, route: str) -> int:
        """How often a route was asked for."""
        with self._lock:
            return sum(one.route == route for one in self.log)

    def is_under_way(self, sha256: str) -> bool:
        """Whether a package is here as a whole, and not judged yet."""
        with self._counting:
            return any(said == sha256 for said, _ in self._came.values())

    def _cut(self, target: str) -> int | None:
        is_upload = _route("POST", target)[0] == "upload"
        return (self.scenario.upload_drop_after_bytes or None) if is_upload else None

    def _comes(self, request: Request) -> float:
        """A request is here as a whole; how many seconds it waits."""
        if _route(request.method, request.raw_path)[0] == "upload":
            said = form(request).get("checksum", b"").decode("latin-1")
            with self._counting:
                self._came[id(request)] = said, time.time()
        return self.scenario.slow_ms / 1000

    def _answer(self, request: Request) -> Reply:
        with self._lock:
            route, task = _route(request.method, request.raw_path)
            before = self._stored
            reply = self._judged(request, route, task)
            silent = isinstance(reply.fault, Reset | DropAfter | Stall)
            if route == "upload":
                taken = self._stored > before
                self._note_upload(request, reply, silent=silent, taken=taken)
            self.log.append(
                Logged(
                    request.method,
                    request.raw_path,
                    route,
                    None if silent else reply.status,
                )
            )
            return reply

    def _note_upload(
        self, request: Request, reply: Reply, *, silent: bool, taken: bool
    ) -> None:
        status = None if silent else reply.status
        with self._counting:
            sha256, came = self._came.pop(id(request))
            self.uploads.append(Upload(sha256, came, time.time(), status, taken))

    def _judged(self, request: Request, route: str, task: str) -> Reply:
        handlers: dict[str, Callable[[Request, str], Reply]] = {
            "health": self._health,
            "models": self._models,
            "upload": self._upload,
            "status": self._status,
            "result": self._result,
            "confirm": self._confirm,
            "refresh_v1": self._refresh,
            "refresh_v2": self._refresh,
            "log": self._tell_log,
            "script": self._take_script,
        }
        if route not in handlers:
            return _said(404, {"detail": "Not found."})
        after = self.scenario.rate_limit_429_after
        if after and len(self.log) >= after and len(self.log) % 2:
            limited = _said(429, {"detail": "slow down"})
            limited.headers["Retry-After"] = "1"
            return limited
        if route in {"upload", "status", "result", "confirm"}:
            bearer = request.headers.get("authorization", "")
            if self._expired or bearer != f"Bearer {self.access_token}":
                return _said(401, {"detail": "the token is not valid"})
        return handlers[route](request, task)

    def _goes_wrong(self, switch: str) -> bool:
        """Whether a `..._n` switch is still to go wrong, and count that it did."""
        if self._done[switch] >= getattr(self.scenario, switch):
            return False
        self._done[switch] += 1
        return True

    def _health(self, _request: Request, _task: str) -> Reply:
        if self._goes_wrong("health_503_n"):
            return _said(503, {"status": "unhealthy", "details": {"queue": "full"}})
        details = {"database": "ok", "storage": "ok", "queue": "ok"}
        return _said(200, {"status": "healthy", "details": details})

    def _models(self, request: Request, _task: str) -> Reply:
        bearer = request.headers.get("authorization", "")
        refused = self._expired or bearer != f"Bearer {self.access_token}"
        if self.scenario.models_401 or (bearer and refused):
            return _said(401, {"detail": "the token is not valid"})
        return _said(200, MODELS)

    def _upload(self, request: Request, _task: str) -> Reply:
        if self._goes_wrong("upload_500_n"):
            return _said(500, {"detail": "internal error"})
        if self._goes_wrong("upload_stall_n"):
            return Reply(201, body=b"{}", fault=Stall())
        if self._goes_wrong("upload_reset_n"):
            return Reply(201, fault=Reset())
        if len(request.body) > self.scenario.upload_limit_bytes:
            return _said(413, {"detail": "too large"})
        fields = form(request)
        content, checksum = fields.get("file"), fields.get("checksum")
        if content is None or checksum is None:
            return _said(400, {"detail": "file and checksum are needed"})
        sha256 = hashlib.sha256(content).hexdigest()
        if checksum.decode("latin-1") != sha256:
            return _said(400, {"detail": "the checksum is another one"})
        try:
            package = packages.opened(content)
        except packages.BadPackage as error:
            return _said(400, {"detail": str(error)})
        self.leaks += packages.leaks(content, package, self.canaries)
        task = self._task_of(sha256, package)
        reply = _said(
            201, {self.scenario.token_name: task.token, "status": STATUSES[0]}
        )
        if self._goes_wrong("upload_drop_n"):
            reply.fault = DropAfter()
        if self._goes_wrong("upload_html_n"):
            page = b"<html>sign in to the proxy</html>"
            return Reply(200, {"Content-Type": "text/html"}, page)
        if self._goes_wrong("upload_504_n"):
            return _said(504, {"detail": "gateway time-out"})
        return reply

    def _task_of(self, sha256: str, package: Package) -> Task:
        self._stored += 1
        for known in self.tasks.values():
            if known.sha256 == sha256 and self.scenario.upload_dup_token:
                known.uploads += 1
                return known
        task = Task(secrets.token_hex(16), sha256, package)
        self.tasks[task.token] = task
        return task

    def _status(self, _request: Request, token: str) -> Reply:
        task = self.tasks.get(token)
        if self._goes_wrong("status_500_n"):
            return _said(500, {"detail": "internal error"})
        if task is None or self.scenario.status_404:
            return _said(404, {"detail": "Not found."})
        if task.deleted:
            return _said(200, {"status": "Delivered to Client"})
        task.polls += 1
        if self.scenario.status_failed:
            return _said(200, {"status": "FAILED", "error": "the GPU is out of memory"})
        if self.scenario.status_stuck or task.polls <= self.scenario.polls:
            return _said(200, {"status": STATUSES[min(task.polls, 3) - 1]})
        return _said(200, {"status": self.scenario.ready_status})

    def _result(self, _request: Request, token: str) -> Reply:
        task = self.tasks.get(token)
        if task is None or task.deleted:
            return _said(404, {"detail": "Not found."})
        if self._goes_wrong("download_500_n"):
            return _said(500, {"detail": "internal error"})
        if task.polls <= self.scenario.polls:
            return _said(409, {"detail": "not ready"})
        task.downloads += 1
        if self.scenario.download_html:
            page = b"<html>maintenance</html>"
            return Reply(200, {"Content-Type": "text/html"}, page)
        if task.result is None:
            task.result = drawing.structure_set(task.package, self.scenario)
        headers = {"Content-Type": "application/dicom"}
        checksum = hashlib.sha256(task.result).hexdigest()
        if self._goes_wrong("download_bad_checksum_n"):
            checksum = hashlib.sha256(b"other").hexdigest()
        if self.scenario.download_upper_checksum:
            checksum = checksum.upper()
        if not self.scenario.download_no_checksum:
            headers["X-File-Checksum"] = checksum
        reply = Reply(200, headers, task.result)
        if self._goes_wrong("download_truncated_n"):
            reply.fault = Truncate(len(task.result) // 2)
        return reply

    def _confirm(self, _request: Request, token: str) -> Reply:
        task = self.tasks.get(token)
        if task is None or task.deleted:
            return _said(404, {"detail": "Not found."})
        if self._goes_wrong("confirm_500_n"):
            return _said(500, {"detail": "internal error"})
        if self._goes_wrong("confirm_other_text_n"):
            return _said(200, {"message": "try again"})
        task.confirmed += 1
        task.deleted = True
        task.result = None
        return _said(200, {"message": CONFIRMED})

    def _refresh(self, request: Request, _task: str) -> Reply:
        way = "v1" if request.raw_path.startswith("/auth/") else "v2"
        if self.scenario.refresh_way not in {way, "both"}:
            return _said(404, {"detail": "Not found."})
        if way == "v1" and "client_id" not in json.loads(request.body or b"{}"):
            return _said(400, {"detail": "client_id is needed"})
        bearer = request.headers.get("authorization", "")
        if self.scenario.refresh_fails or bearer != f"Bearer {self.refresh_token}":
            return _said(401, {"detail": "the token is not valid"})
        self.access_token = secrets.token_urlsafe(16)
        self._expired = False
        said: dict[str, Any] = {"access_token": self.access_token}
        if self.scenario.refresh_rotates:
            self.refresh_token = secrets.token_urlsafe(16)
            said["refresh_token"] = self.refresh_token
        if way == "v1":
            said["expires_in"] = 3600
        else:
            said["expires_at"] = "2099-01-01T00:00:00Z"
        return _said(200, said)

    def _tell_log(self, _request: Request, _task: str) -> Reply:
        return _said(200, [vars(one) for one in self.log])

    def _take_script(self, request: Request, _task: str) -> Reply:
        self.script(**json.loads(request.body))
        return _said(200, {})


def form(request: Request) -> dict[str, bytes]:
    """The parts of a multipart/form-data body, by their names."""
    kind = request.headers.get("content-type", "")
    found = re.search(r'boundary="?([^";]+)"?', kind)
    if not kind.startswith("multipart/form-data") or found is None:
        return {}
    fields = {}
    for part in request.body.split(b"--" + found[1].encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = re.search(rb'[; ]name="([^"]*)"', head)
        if name:
            fields[name[1].decode("latin-1")] = content.removesuffix(b"\r\n")
    return fields


_ROUTES = (
    ("GET", r"/api/health/?", "health"),
    ("GET", r"/api/models/", "models"),
    ("POST", r"/api/upload/", "upload"),
    ("GET", r"/api/upload/([^/]+)/status/", "status"),
    ("GET", r"/api/rtstruct/([^/]+)/", "result"),
    ("POST", r"/api/rtstruct/([^/]+)/confirm/", "confirm"),
    ("POST", r"/auth/refresh", "refresh_v1"),
    ("POST", r"/api/token/refresh/", "refresh_v2"),
    ("GET", r"/__test__/log", "log"),
    ("POST", r"/__test__/script", "script"),
)


def _route(method: str, path: str) -> tuple[str, str]:
    for wanted, pattern, name in _ROUTES:
        found = re.fullmatch(pattern, path)
        if found and method == wanted:
            return name, found[1] if found.groups() else ""
    return "", ""


def _said(status: int, value: Any) -> Reply:
    headers = {"Content-Type": "application/json"}
    return Reply(status, headers, json.dumps(value).encode())
