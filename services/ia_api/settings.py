"""What an administrator may choose of the IA-API service: the table `[ia_api]`.

It stands in `theatrum.toml` of the home folder; the options of the commands win over
it. A name that is no setting, and a value that is not allowed, stop the start with a
sentence that says which one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from services.ia_api.errors import IaApiError
from services.ia_api.origins import origin_of

InputType = Literal["wholeSlide", "taggedPolygon", "multiArea"]
AppId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
_SEGMENT = re.compile(r"[A-Za-z0-9_-]{16,128}")


class BadSettings(IaApiError):
    """A setting of the service is wrong; the message names it."""


def _origin(text: str) -> str:
    found = origin_of(text)
    if found is None or urlsplit(text).path not in {"", "/"}:
        raise ValueError(
            f"{text!r} is no origin: scheme, host and port as in https://sps:443"
        )
    return str(found)


def _network(text: str) -> str:
    return str(ipaddress.ip_network(text, strict=False))


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as err:
        raise ValueError(f"{text!r} is no regular expression: {err}") from err
    return text


Origin = Annotated[str, AfterValidator(_origin)]
Network = Annotated[str, AfterValidator(_network)]
Pattern = Annotated[str, Field(max_length=500), AfterValidator(_pattern)]


class _Table(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True
    )


class Triage(_Table):
    """Which slides of the image notifications an app takes; all that is said holds.

    The patterns are regular expressions, found anywhere, small and large letters alike.
    """

    stain: Pattern | None = None
    organ: Pattern | None = None
    """Of the specimen's anatomy or description, or the body part."""
    scanner: Pattern | None = None
    """Of the station's name; a slide without one is not taken."""
    min_um_per_pixel: Annotated[float, Field(gt=0)] | None = None
    max_um_per_pixel: Annotated[float, Field(gt=0)] | None = None
    file_formats: tuple[str, ...] = ()
    """MIME types, such as `application/dicom`; none means all."""
    streamable: bool | None = None
    quality: tuple[Literal["NotSet", "QualityOk", "Rejected"], ...] = (
        "NotSet",
        "QualityOk",
    )
    """States of the quality control that are taken; a slide without one counts as
    `NotSet`."""


class AppSettings(_Table):
    """One app: a node with what the pathology server is told of it."""

    node: str
    """`module:name`, or `file.py:name` in the home folder."""
    input: InputType | None = None
    """What the user marks first; by default what the node's ports ask for."""
    title: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    tags: tuple[str, ...] = ()
    """Choices for the user's polygon (`taggedPolygon` only)."""
    context: dict[str, Any] = {}
    """Sent to the pathology server, and back with each invocation."""
    parameters: dict[str, Any] = {}
    """For the node, checked against its own schema at the start."""
    notifications: Triage | None = None
    """Which imported slides are analysed unasked; without it none."""
    needs: Literal["files", "tiles"] | None = None
    """Whether the slide's files are fetched or only the tiles that are looked at. By
    default files for a whole slide and tiles for regions; a slide that cannot be
    streamed is always fetched."""
    phi: bool = False
    """Whether patient data may be asked for; `label` needs it."""
    case: bool = False
    """Whether the list of the case's other images is fetched first (version 1.9)."""
    thumbnail: bool = False
    """Whether a small picture of the slide is kept while the job runs."""
    label: bool = False
    """Whether the label's picture, which shows names, is kept while the job runs."""
    publish: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")] | None = None
    """The collection of the catalogue that gets a de-identified copy of each slide with
    its result; none without it."""
    quality_write_back: bool = False
    """Whether the node's verdict is written to the slide's quality control (1.10)."""

    @model_validator(mode="after")
    def _label_is_patient_data(self) -> Self:
        if self.label and not self.phi:
            raise ValueError("label shows patient data: it needs phi = true as well")
        return self


class Credentials(_Table):
    """A user of the pathology server who may ask for tokens (client credentials)."""

    user: str
    password: SecretStr


class ServiceSettings(_Table):
    """The table `[ia_api]`."""

    enabled: bool = False
    """Whether the hub runs the service and its workers."""
    workers: int = Field(1, ge=0, le=64)
    """Worker processes that the hub runs; more may run elsewhere."""
    jobs_per_worker: int = Field(2, ge=1, le=64)
    """Jobs that one worker runs at once: more use more memory."""
    public_url: str = Field("", pattern=r"^(https?://[^\s?#]+)?$")
    """The address by which the pathology server reaches this service."""
    allow_callback: tuple[Origin, ...] = ()
    """Origins of pathology servers that may be called back; all others are refused."""
    allow_clients: tuple[Network, ...] = ()
    """Networks that may call the service; none means all."""
    trusted_proxies: tuple[Network, ...] = ()
    """Proxies whose X-Forwarded-For is believed, for `allow_clients`."""
    path_secret: SecretStr = SecretStr("")
    """A segment in every address, known to the pathology server only; 16 to 128
    letters, digits, hyphens and underscores."""
    manufacturer: str = Field("Theatrum", min_length=1, max_length=128)
    shipped_apps: bool = True
    """Whether the nodes of `theatrum.nodes` are apps without being named."""
    apps: dict[AppId, AppSettings] = {}

    api_version_min: str = Field("1.5", pattern=r"^\d+\.\d+$")
    api_version_max: str = Field("1.10", pattern=r"^\d+\.\d+$")
    ca_bundle: Path | None = None
    """Certificates to trust besides the system's."""
    verify_tls: bool = True
    """False trusts any certificate: only for a test, and the log says so."""
    rewrite_callbacks: dict[str, str] = {}
    """Beginnings of callback addresses and what to call instead."""
    credentials: Credentials | None = None
    """With them an expired token is replaced; without them the job waits."""
    callback_read_s: float = Field(30.0, gt=0, le=600)
    """How long the pathology server may be silent in a callback; longer lets a slow one
    finish, shorter notices a dead one sooner. The web server waits at most 8."""
    software_version: str = "0.1.0"
    """Sent in X-Sectra-SoftwareVersion."""

    body_bytes: int = Field(1 << 20, ge=1024)
    """The largest invocation that is read."""
    points: int = Field(50_000, ge=4)
    """The most points in one invocation."""
    depth: int = Field(32, ge=8, le=200)
    """How deep the JSON of an invocation may be nested."""
    result_bytes: int = Field(5_000_000, ge=10_000)
    """The largest result that is sent."""
    answer_deadline_s: float = Field(10.0, gt=0, le=20)
    """Within which `create` is answered, whatever the pathology server does."""
    invocations_per_minute: int = Field(600, ge=1)
    notifications_per_minute: int = Field(12_000, ge=1)
    queue_limit: int = Field(100_000, ge=1)
    """The most jobs that may wait; beyond it a caller is told to come again."""

    on_repeat: Literal["attach", "supersede"] = "attach"
    """What a second request for the same slide and marks does while one is at work."""
    on_previous: Literal["reuse_latest", "new_per_run"] = "reuse_latest"
    """Whether an unfinished result of ours on the slide is used again."""

    lease_s: float = Field(15.0, gt=0.2)
    """Seconds without a heartbeat after which a worker counts as dead."""
    attempts: int = Field(8, ge=1, le=50)
    """How often a job is tried before it is given up."""
    crashes: int = Field(3, ge=1, le=50)
    """How often an analysis may crash or run out of time before it is given up."""
    backoff_base_s: float = Field(2.0, gt=0)
    backoff_cap_s: float = Field(300.0, gt=0)
    job_deadline_s: float = Field(86_400.0, gt=0)
    """After which a job that is still not done is given up."""
    auth_deadline_s: float = Field(43_200.0, gt=0)
    """How long a job waits for a new token."""
    progress_interval_s: float = Field(10.0, ge=0)
    """Seconds between two progress updates of one job."""
    stop_patience_s: float = Field(20.0, ge=0)
    """How long a worker that is told to stop lets its analyses go on."""

    slide_bytes: int = Field(64 << 30, ge=1)
    """The largest slide that is fetched."""
    disk_quota_bytes: int = Field(500 << 30, ge=1)
    """What all fetched slides together may take on one machine."""
    min_free_bytes: int = Field(5 << 30, ge=0)
    """What is left free on the disk."""
    retention_days: float = Field(90.0, ge=0)
    """How long rows of ended jobs, their events and the audit log are kept."""

    metrics_port: int = Field(0, ge=0, le=65535)
    """Port of live, ready and metrics of the web server; workers take the next ones.
    0 for none."""
    metrics_bind: str = "127.0.0.1"

    @model_validator(mode="after")
    def _secret_is_a_segment(self) -> Self:
        secret = self.path_secret.get_secret_value()
        if secret and not _SEGMENT.fullmatch(secret):
            raise ValueError(
                "path_secret takes 16 to 128 letters, digits, hyphens and underscores"
            )
        return self


# Any: the table as TOML gave it
def read(table: Mapping[str, Any], **given: Any) -> ServiceSettings:
    """The settings of `table`, with what the command line gave (None: not given).

    Raises BadSettings.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        return ServiceSettings.model_validate({**table, **chosen})
    except ValidationError as err:
        raise BadSettings(
            "\n".join(_sentence(fault) for fault in err.errors())
        ) from err


def _sentence(fault: Any) -> str:
    name = ".".join(["ia_api", *(str(part) for part in fault["loc"])])
    if fault["type"] == "extra_forbidden":
        return f"{name} is not a setting: see docs/ia_api.md for those that there are."
    return f"{name}: {fault['msg']}."
