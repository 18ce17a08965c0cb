"""The services, groups and roles of an installation, as JupyterHub wants them.

Rights are least and bound to groups, so that they change without a restart:
everybody may use the catalogue, the courses and the dashboards, which then ask for
the person's groups; only a course's teachers may enter its grading server.
"""

from __future__ import annotations

import os
import shutil
import sys
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub import scopes
from hub import settings as settings_module
from hub.course import Course
from hub.home import Home
from hub.leftovers import INSTANCE, instance
from hub.settings import ROOT, Settings
from hub.system_accounts import SERVICES

RESEARCHERS = "researchers"
OPEN_TO_ALL = ("catalog", "courses", "voila")
# Its pages are for its administrators; the pathology server needs no account.
IA_API = "ia-api"
IA_API_ADMINS = "ia-api-admins"
IA_API_VIEWERS = "ia-api-viewers"
# Sees the pathology server's ids of slides as well.
IA_API_PHI = "ia-api-phi"
# Patients are seen here: only who is in one of its groups gets in, and each group may
# do what its name says (services/dicom_client/people.py).
DICOM_CLIENT = "dicom-client"
DICOM_GROUPS = (
    "dicom-viewers",
    "dicom-planners",
    "dicom-template-editors",
    "dicom-administrators",
)

# JupyterHub's own records; it checks them when it reads them.
Record = dict[str, Any]


@dataclass(frozen=True)
class Installation:
    """All that the wiring follows from."""

    settings: Settings
    home: Home
    courses: Sequence[Course]
    ports: dict[str, int]
    tile_key: bytes

    @property
    def local_url(self) -> str:
        """The public address as processes on this machine reach it, ending in `/`."""
        bind = self.settings.bind
        host = "127.0.0.1" if bind in {"0.0.0.0", "", "::"} else bind  # noqa: S104
        return f"http://{host}:{self.settings.port}{self.settings.base_url}"

    def service_url(self, name: str) -> str:
        return f"{self.local_url}services/{name}"

    @property
    def serves_ia_api(self) -> bool:
        """Whether the IA-API service and its workers run beside the hub."""
        return self.settings.ia_api.get("enabled") is True

    @property
    def serves_dicom_client(self) -> bool:
        """Whether the DICOM segmentation client runs beside the hub."""
        return self.settings.dicom_client.get("enabled") is True

    @property
    def isolated(self) -> bool:
        return self.settings.mode == "accounts"


def port_names(courses: Sequence[Course]) -> list[str]:
    """What needs a port of its own."""
    own = ["hub", "proxy", "tiles", *OPEN_TO_ALL, IA_API, DICOM_CLIENT]
    return [*own, *(course.id for course in courses)]


def kernel_environment(here: Installation, *, kind: str = "people") -> dict[str, str]:
    """What the notebook library needs to find the services; no secret is in it.

    `kind` is whose notebook server it is: `people` or `graders`.
    """
    jupyter = ROOT / "hub" / "jupyter"
    return {
        INSTANCE: instance(here.home.root),
        "THEATRUM_CATALOG_URL": here.service_url("catalog"),
        "THEATRUM_COURSES_URL": here.service_url("courses"),
        "JUPYTER_CONFIG_PATH": f"{jupyter / kind}{os.pathsep}{jupyter}",
        "JUPYTER_PATH": str(jupyter / "share"),
    }


def welcome(courses: Sequence[Course]) -> dict[str, str]:
    """The first course's welcome notebook, as it ships, by file name.

    Never the copy in the course's folder: the account that grades can write there,
    and the hub, which may be root, would put whatever it finds into people's homes.
    """
    for course in courses:
        file = ROOT / "notebooks" / "courses" / course.id / "welcome.ipynb"
        if file.is_file():
            return {file.name: file.read_text("utf-8")}
    return {}


def install_dashboards(home: Home) -> None:
    """Put the dashboards that ship where they are served from, unless they are there.

    Only while the folder is ours: what another account can write to is left alone.
    """
    if home.dashboards.stat().st_uid != os.geteuid():
        return
    for notebook in (ROOT / "notebooks" / "dashboards").glob("*.ipynb"):
        if not (home.dashboards / notebook.name).exists():
            shutil.copyfile(notebook, home.dashboards / notebook.name)


def services(here: Installation) -> list[Record]:
    """The hub-managed services, in the order in which they are started."""
    tile_key = urlsafe_b64encode(here.tile_key).decode()
    own = settings_module.as_environment(here.settings)
    tiles = _service(
        here,
        "tiles",
        [sys.executable, "-m", "tile_server", "hub"],
        {
            "THEATRUM_TILE_KEY": tile_key,
            "THEATRUM_TILE_CACHE": str(here.home.cache / "tiles"),
            "THEATRUM_TILE_CACHE_BYTES": str(here.settings.tile_cache_bytes),
            # The service's own port: all goes through the fast lane.
            "THEATRUM_TILE_LANE_PORT": str(here.ports["tiles"]),
            "THEATRUM_TILE_WORKERS": str(here.settings.tile_workers),
            "THEATRUM_TILE_CORS": here.settings.tile_cors,
            **_metrics(here.settings.tile_metrics_port),
        },
        display=False,
    )
    catalog = _service(
        here,
        "catalog",
        [sys.executable, "-m", "services.catalog"],
        {**own, "THEATRUM_TILE_KEY": tile_key},
        # What its pages do in the visitor's name.
        oauth_client_allowed_scopes=scopes.named(*scopes.CATALOG),
    )
    courses = _service(
        here,
        "courses",
        [sys.executable, "-m", "services.courses"],
        own,
        display=False,
    )
    voila = _service(
        here,
        "voila",
        [sys.executable, "-m", "services.dashboards", str(here.home.dashboards)],
        kernel_environment(here) | {"HOME": str(here.home.dashboards)},
        # A dashboard asks the catalogue in the name of the person who looks at it.
        oauth_client_allowed_scopes=[
            "access:services!service=catalog",
            *scopes.named("catalog:read", "pixels:read"),
        ],
    )
    culler = {
        "name": "idle-culler",
        "command": [
            sys.executable,
            "-m",
            "jupyterhub_idle_culler",
            f"--timeout={here.settings.idle_timeout_s}",
        ],
        "environment": {INSTANCE: instance(here.home.root)},
        **({"user": SERVICES} if here.isolated else {}),
    }
    graders = [_grader(here, course) for course in here.courses]
    ia_api = _ia_api(here, own) if here.serves_ia_api else []
    dicom = _dicom_client(here, own) if here.serves_dicom_client else []
    batches = _workers(
        here, "catalog", [sys.executable, "-m", "services.catalog", "worker"], own, 1
    )
    return [
        tiles,
        catalog,
        *batches,
        courses,
        voila,
        *graders,
        *ia_api,
        *dicom,
        culler,
    ]


def _ia_api(here: Installation, own: dict[str, str]) -> list[Record]:
    """The web server that the pathology server calls, and its workers."""
    module = [sys.executable, "-m", "services.ia_api"]
    web = _service(here, IA_API, module, own, display=False)
    # Where the administrator names no public address it is the hub's own.
    web["environment"]["THEATRUM_IA_API_URL"] = here.service_url(IA_API)
    count = int(here.settings.ia_api.get("workers", 1))
    return [web, *_workers(here, IA_API, [*module, "worker"], own, count)]


def _dicom_client(here: Installation, own: dict[str, str]) -> list[Record]:
    """The pages and receiver of the segmentation client, and its workers."""
    module = [sys.executable, "-m", "services.dicom_client"]
    web = _service(here, DICOM_CLIENT, module, own)
    count = int(here.settings.dicom_client.get("workers", 1))
    return [web, *_workers(here, DICOM_CLIENT, [*module, "worker"], own, count)]


def _workers(
    here: Installation,
    name: str,
    command: list[str],
    own: dict[str, str],
    count: int,
) -> list[Record]:
    """Processes without an address, named after the service that they work for."""
    workers = []
    for number in range(1, count + 1):
        worker = _service(here, name, command, own)
        del worker["url"], worker["oauth_no_confirm"]
        workers.append({**worker, "name": f"{name}-worker-{number}"})
    return workers


def _metrics(port: int) -> dict[str, str]:
    return {"THEATRUM_TILE_METRICS_PORT": str(port)} if port else {}


def _service(
    here: Installation,
    name: str,
    command: list[str],
    environment: dict[str, str],
    **more: Any,  # Any: further entries of JupyterHub's record
) -> Record:
    return {
        "name": name,
        "url": f"http://127.0.0.1:{here.ports[name]}",
        "command": command,
        "cwd": str(ROOT),
        "environment": {INSTANCE: instance(here.home.root), **environment},
        "oauth_no_confirm": True,
        **({"user": SERVICES} if here.isolated else {}),
        **more,
    }


def _grader(here: Installation, course: Course) -> Record:
    """The course's nbgrader server: formgrader for its teachers only."""
    folder = here.home.courses / course.id
    root_flag = ["--allow-root"] if os.geteuid() == 0 and not here.isolated else []
    record = _service(
        here,
        course.id,
        [
            str(Path(sys.executable).with_name("jupyterhub-singleuser")),
            f"--ServerApp.root_dir={folder}",
            "--ServerApp.default_url=/formgrader",
            *root_flag,
        ],
        kernel_environment(here, kind="graders")
        | {
            "HOME": str(folder),
            "JUPYTERHUB_USER": course.account,
            "THEATRUM_COURSE": course.id,
            "THEATRUM_COURSE_DIR": str(folder),
        },
    )
    record["cwd"] = str(folder)
    if here.isolated:
        record["user"] = course.account
    return record


def groups(here: Installation) -> dict[str, Record]:
    """The groups that the courses name, and the demo's researchers."""
    found: dict[str, Record] = {
        RESEARCHERS: {"users": ["researcher"] if here.settings.demo else []}
    }
    if here.serves_ia_api:
        found[IA_API_ADMINS] = {"users": ["teacher"] if here.settings.demo else []}
        found[IA_API_VIEWERS] = {"users": ["researcher"] if here.settings.demo else []}
        found[IA_API_PHI] = {"users": []}
    if here.serves_dicom_client:
        found |= {group: {"users": _in_group(here, group)} for group in DICOM_GROUPS}
    for course in here.courses:
        found[course.student_group] = {"users": list(course.students)}
        found[course.teacher_group] = {"users": list(course.teachers)}
    return found


def _in_group(here: Installation, group: str) -> list[str]:
    """Whom `[dicom_client]` names for a group; in the demo the teacher by default."""
    key = group.removeprefix("dicom-").replace("-", "_")
    default = ["teacher"] if here.settings.demo else []
    return list(here.settings.dicom_client.get(key, default))


def roles(here: Installation) -> list[Record]:
    """Who may do what. To name a built-in role replaces it: its own scopes stay."""
    everybody = [f"access:services!service={name}" for name in OPEN_TO_ALL]
    seen = [f"read:services!service={course.id}" for course in here.courses]
    found: list[Record] = [
        {
            "name": "user",
            "description": "Everybody: the own server, and the services open to all",
            "scopes": ["self", *everybody, *scopes.named(*scopes.CATALOG)],
        },
        {
            "name": "server",
            "description": "What a notebook server may do in its owner's name",
            "scopes": [
                "users:activity!user",
                "access:servers!server",
                "read:users:groups!user",
                *everybody,
                # To share or delete a project is done by the person, not by a cell.
                *scopes.named(*sorted(scopes.CATALOG.keys() - {"admin"})),
                "list:services",
                *seen,
            ],
        },
        {
            "name": "idle-culler",
            "scopes": [
                "list:users",
                "read:users:activity",
                "read:servers",
                "delete:servers",
            ],
            "services": ["idle-culler"],
        },
    ]
    if here.serves_ia_api:
        found.append(
            {
                "name": IA_API_ADMINS,
                "description": "The pages of the IA-API service",
                "scopes": [f"access:services!service={IA_API}"],
                "groups": [IA_API_ADMINS, IA_API_VIEWERS],
            }
        )
    if here.serves_dicom_client:
        found.append(
            {
                "name": DICOM_CLIENT,
                "description": "The pages of the DICOM segmentation client",
                "scopes": [f"access:services!service={DICOM_CLIENT}"],
                "groups": list(DICOM_GROUPS),
            }
        )
    found.extend(_course_role(course) for course in here.courses)
    found.extend(_grader_role(course) for course in here.courses)
    return found


def _course_role(course: Course) -> Record:
    return {
        "name": f"teachers-{course.id.replace('_', '-')}",
        "description": f"Teachers of {course.title}: its grading server",
        "scopes": [f"access:services!service={course.id}"],
        "groups": [course.teacher_group],
    }


def _grader_role(course: Course) -> Record:
    """What nbgrader's own sign-in plug-in asks the hub, for this course only."""
    group = course.student_group
    return {
        "name": f"grader-{course.id.replace('_', '-')}",
        "description": f"The grading server of {course.title}",
        "scopes": [
            "access:services!service=catalog",
            *scopes.named("catalog:read", "pixels:read"),
            "access:services!service=courses",
            f"list:users!group={group}",
            f"read:users!group={group}",
            f"list:groups!group={group}",
            f"groups!group={group}",
        ],
        "services": [course.id],
    }
