"""What an administrator may choose of the DICOM client: the table `[dicom_client]`.

It stands in `theatrum.toml` of the home folder; the options of the commands win over
it, and over both what an administrator changed on the pages (`CHANGEABLE`). A name that
is no setting, and a value that is not allowed, stop the start with a sentence that says
which one. Tokens and keys are no settings: they are sealed in the store.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from services.dicom_client.acceptance import KINDS, LOCALIZERS, SEGMENTED, Acceptance
from services.dicom_client.draw_server import DrawSettings, Endpoints, check_address
from services.dicom_client.errors import BadRequest, DicomClientError
from services.dicom_client.storage import STORAGE, StorageKind
from services.dicom_client.templates import SHIPPED_ENGINES


class BadSettings(DicomClientError):
    """A setting of the service is wrong; the message names it."""

    code = "settings"


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as err:
        raise ValueError(f"{text!r} is no regular expression: {err}") from err
    return text


def _address(text: str) -> str:
    try:
        if text:
            check_address(text)
    except BadRequest as err:
        raise ValueError(str(err)) from err
    return text


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError) as err:
        raise ValueError(f"{text!r} is no time zone such as Europe/Berlin") from err
    return text


def _hours(text: str) -> str:
    if text and not re.fullmatch(
        r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d", text
    ):
        raise ValueError("write hours as 18:00-06:00")
    return text


def _kind(keyword: str) -> str:
    if keyword not in KINDS:
        raise ValueError(f"{keyword!r} is no storage class such as CTImageStorage")
    return keyword


AeTitle = Annotated[str, Field(pattern=r"^[ -\[\]-~]{1,16}$")]
Waits = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]


class _Table(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True
    )


class Server(_Table):
    """The DRAW server, `[dicom_client.server]`."""

    base_url: Annotated[str, AfterValidator(_address)] = ""
    """`https://...`; empty where only local engines are used."""
    client_id: str = Field("", max_length=128)
    """What the server calls this client."""
    refresh: Literal["v1", "v2", "auto"] = "auto"
    """How an access token is renewed."""
    endpoints: dict[str, str] = {}
    """Paths other than the usual ones, by their names."""
    proxy: str | None = None
    """A proxy to go through; the environment's is not taken."""
    ca_bundle: Path | None = None
    """Certificates to trust besides the system's."""
    timeout_s: float = Field(60.0, gt=0)
    """Seconds between two pieces of an answer."""
    upload_timeout_s: float = Field(300.0, gt=0)
    """Seconds for the answer to a package after its last byte."""

    @model_validator(mode="after")
    def _endpoints_are_known(self) -> Self:
        strange = set(self.endpoints) - set(Endpoints.__dataclass_fields__)
        if strange:
            raise ValueError(f"there is no endpoint {', '.join(sorted(strange))}")
        return self

    def draw(self) -> DrawSettings:
        """What the server's client wants."""
        return DrawSettings(
            self.base_url,
            self.client_id,
            Endpoints(**self.endpoints),
            self.refresh,
            self.proxy,
            self.ca_bundle,
            self.timeout_s,
            self.upload_timeout_s,
        )


class Scp(_Table):
    """Receiving by C-STORE, `[dicom_client.scp]`; it listens where `port` is set."""

    port: int = Field(0, ge=0, le=65535)
    """Where it listens; 0 receives nothing."""
    bind: str = "0.0.0.0"  # noqa: S104 (modalities send from elsewhere)
    """The address to listen at."""
    ae_title: AeTitle = "THEATRUM"
    """What senders call us."""
    allow_ae: tuple[AeTitle, ...] = ()
    """Calling AE titles that may send; none means all."""
    allow_clients: tuple[str, ...] = ()
    """Networks that may send; none means all."""
    storage: Annotated[tuple[StorageKind, ...], Field(min_length=1)] = tuple(STORAGE)
    """What is taken. What is not segmented is better taken, and ignored with its
    reason: many senders give a study up where one kind is refused."""
    tls_certificate: Path | None = None
    """Our certificate (PEM); with it nothing but TLS is spoken at the port."""
    tls_key: Path | None = None
    """Its key (PEM), without a passphrase."""
    tls_ca: Path | None = None
    """With it a sender shows a certificate of this authority."""
    max_associations: int = Field(16, ge=1, le=200)
    """Senders at a time; each may hold one object in memory."""
    largest_bytes: int = Field(1 << 30, ge=1 << 20)
    """A larger object ends its association."""
    idle_s: float = Field(60.0, gt=0)
    """An association in which nothing happens for so long is ended."""
    quota_bytes: int = Field(200 << 30, ge=1)
    """What received, fetched and uploaded files together may take; beyond it senders
    are refused."""

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together")
        if self.tls_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_ca needs tls_certificate and tls_key as well")
        return self


class Web(_Table):
    """How a DICOMweb server is reached; its token or password is a secret."""

    url: Annotated[str, AfterValidator(_address)] = ""
    """Its DICOMweb address, as `https://pacs.hospital/dicom-web`; empty for none."""
    user: str = Field("", max_length=128)
    """Whose password the secret is; empty where a token is used, or nothing."""
    ca_bundle: Path | None = None
    """Certificates to trust besides the system's."""
    timeout_s: float = Field(60.0, gt=0)
    """Seconds between two pieces of an answer."""


class Dicomweb(Web):
    """A PACS that is asked by QIDO-RS, `[dicom_client.dicomweb]`."""

    query: dict[str, str] = {}
    """Attributes that a series has to match, as `StudyDate`."""
    modalities: tuple[Annotated[str, Field(pattern=r"^[A-Z]{2,16}$")], ...] = (
        "CT",
        "MR",
        "PT",
    )
    """Modalities that are fetched."""
    largest_bytes: int = Field(4 << 30, ge=1 << 20)
    """The largest object that is fetched."""
    interval_s: float = Field(300.0, ge=1)
    """Seconds between two questions."""


class Stow(Web):
    """A DICOMweb server that structure sets are stored at, `[dicom_client.stow]`."""


class Upload(_Table):
    """Zip files that people upload, `[dicom_client.upload]`."""

    archive_bytes: int = Field(8 << 30, ge=1 << 20)
    """The largest zip file that is taken."""
    unpacked_bytes: int = Field(16 << 30, ge=1 << 20)
    """What one may unpack to."""
    files: int = Field(20_000, ge=1)
    """Files that one may hold."""
    file_bytes: int = Field(1 << 30, ge=1 << 20)
    """The largest file in one."""


class ServiceSettings(_Table):
    """The table `[dicom_client]`."""

    enabled: bool = False
    """Whether the hub runs the service and its workers."""
    viewers: tuple[str, ...] = ()
    """Hub accounts that join the group `dicom-viewers` at the hub's start. To take one
    out, the hub's API does, or its administrators' page."""
    planners: tuple[str, ...] = ()
    """The same of `dicom-planners`."""
    template_editors: tuple[str, ...] = ()
    """The same of `dicom-template-editors`."""
    administrators: tuple[str, ...] = ()
    """The same of `dicom-administrators`."""
    workers: int = Field(1, ge=0, le=64)
    """Worker processes that the hub runs; more may run elsewhere."""
    jobs_per_worker: int = Field(2, ge=1, le=64)
    """Jobs that one worker works on at once: more use more memory."""
    server: Server = Field(default_factory=lambda: Server.model_validate({}))
    scp: Scp = Field(default_factory=lambda: Scp.model_validate({}))
    dicomweb: Dicomweb = Field(default_factory=lambda: Dicomweb.model_validate({}))
    stow: Stow = Field(default_factory=lambda: Stow.model_validate({}))
    upload: Upload = Field(default_factory=lambda: Upload.model_validate({}))

    watch: tuple[Path, ...] = ()
    """Folders whose images are taken, with all folders below them."""
    watch_interval_s: float = Field(10.0, gt=0)
    """Seconds between two looks at the folders."""
    stable_s: float = Field(60.0, ge=0)
    """Seconds without a new or changed file after which a series is complete."""
    short_s: float = Field(600.0, ge=0)
    """The same where a sender announced more images than came; a person looks then."""
    stable_scans: int = Field(2, ge=1)
    """Looks in a row that have to find a file the same."""
    pull_start: Annotated[str, Field(pattern=r"^(\d{4}-\d{2}-\d{2})?$")] = ""
    """Files last changed before this day are passed over; empty takes all."""

    sop_classes: tuple[Annotated[str, AfterValidator(_kind)], ...] = SEGMENTED
    """Kinds of objects that are segmented, by their keywords; others are ignored."""
    localizer: Annotated[str, AfterValidator(_pattern)] = LOCALIZERS
    """A pattern for series descriptions that are ignored; empty takes localizers."""
    min_instances: int = Field(10, ge=1)
    """Series of fewer images are held."""
    study_date_from: Annotated[str, Field(pattern=r"^(\d{8})?$")] = ""
    """Studies before this day, as 20240131, are ignored."""
    warn_faces: bool = False
    """Whether series of heads, whose faces can be made out, carry a warning."""

    profile: str = "autosegmentation"
    """The de-identification profile: a shipped one, or a file."""
    canaries: tuple[str, ...] = ()
    """Texts that no package may hold besides the patient's, such as the hospital's
    name."""

    beside_images: bool = True
    """Whether the structure set is put beside the images that came from a folder."""
    deliver_folder: Path | None = None
    """A folder that every structure set is put into."""
    file_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,16}$")] = "RS"
    """How files in folders begin; the rest of the name tells nothing of a patient."""
    file_mode: Annotated[str, Field(pattern=r"^0?[0-7]{3}$")] = "640"
    """Permissions of these files, as `chmod` writes them."""
    ready_marker: bool = False
    """Whether a `.ready` file tells that a delivered one is whole."""

    on_unknown_upload: Literal["ask", "again"] = "ask"
    """What follows an upload of which nobody knows whether it arrived: a person
    decides, or the same package is sent again."""
    on_unknown_delivery: Literal["ask", "again"] = "ask"
    """What follows where a node did not answer to what it was sent, and cannot be asked
    by C-FIND: a person decides, or it is sent there again."""
    send_hours: Annotated[str, AfterValidator(_hours)] = ""
    """Packages leave within these hours only, as 18:00-06:00; empty for always."""
    time_zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    """Of `send_hours`, `pull_start` and the structure sets' dates."""
    poll_s: Waits = (30.0, 60.0, 120.0, 180.0, 300.0)
    """Seconds before each question for the status; the last one is repeated."""
    job_deadline_s: float = Field(172_800.0, gt=0)
    """After which a job that the server still has is stopped for a person."""
    lost_after: int = Field(5, ge=1)
    """Answers in a row that a task is unknown, before it counts as lost."""

    lease_s: float = Field(15.0, gt=0.2)
    """Seconds without a heartbeat after which a worker counts as dead."""
    attempts: int = Field(8, ge=1, le=100)
    """How often a step is tried before the job is stopped for a person."""
    crashes: int = Field(4, ge=1, le=100)
    """How often a worker may die over a step before the job is stopped."""
    backoff_base_s: float = Field(2.0, gt=0)
    """Seconds after a first failure; doubled after each further one."""
    backoff_cap_s: float = Field(600.0, gt=0)
    """The longest wait between two tries."""
    breaker_failures: int = Field(5, ge=1)
    """Failures in a row after which the server is left alone for a while."""
    breaker_s: float = Field(60.0, gt=0)
    """For how long at first."""
    stop_patience_s: float = Field(20.0, ge=0)
    """How long a worker that is told to stop lets its steps go on."""
    engines: tuple[str, ...] = SHIPPED_ENGINES
    """Nodes that templates may name as local engines, by their addresses. Loading a
    node runs its code, so an administrator chooses."""
    engine_timeout_s: float = Field(3600.0, gt=0)
    """How long a local engine may work on a series."""
    engine_bytes: int = Field(16 << 30, ge=1 << 28)
    """The memory that a local engine may take."""

    min_free_bytes: int = Field(2 << 30, ge=0)
    """Below it nothing new is begun."""
    retention_days: float = Field(90.0, ge=0)
    """How long ended jobs, their mappings and structure sets are kept."""
    received_days: float = Field(7.0, ge=0)
    """How long images that were received are kept after their job has ended."""
    audit_days: float = Field(3650.0, ge=1)
    """How long lines of the audit log are kept."""

    metrics_port: int = Field(0, ge=0, le=65535)
    """Port of live, ready and metrics of the web server; workers take the next ones.
    0 for none."""
    metrics_bind: str = "127.0.0.1"
    """The address of that port."""

    def acceptance(self) -> Acceptance:
        """What the acceptance checks want."""
        return Acceptance(
            sop_classes=frozenset(KINDS[name] for name in self.sop_classes),
            localizer=self.localizer,
            instances=self.min_instances,
            study_date_from=self.study_date_from,
            recognisable=self.warn_faces,
        )

    def may_send(self, now: datetime) -> bool:
        """Whether packages may leave now; `now` has a time zone."""
        if not self.send_hours:
            return True
        first, _, last = self.send_hours.partition("-")
        begin, end = time.fromisoformat(first), time.fromisoformat(last)
        at = now.astimezone(ZoneInfo(self.time_zone)).time()
        return begin <= at < end if begin < end else at >= begin or at < end


SECRETS = {
    "dicomweb-token": "Token of the PACS that series are fetched from",
    "dicomweb-password": "Password at that PACS, with dicomweb.user",
    "stow-token": "Token of the server that structure sets are stored at",
    "stow-password": "Password at that server, with stow.user",
}
"""What is written on the pages or by the API, sealed, and never shown."""

CHANGEABLE = frozenset(
    {
        *("server", "localizer", "min_instances", "study_date_from", "warn_faces"),
        "sop_classes",
        *("stable_s", "pull_start", "send_hours", "poll_s", "on_unknown_upload"),
        "on_unknown_delivery",
        *("beside_images", "retention_days", "received_days", "min_free_bytes"),
        *("dicomweb", "stow"),
    }
)
"""What an administrator may change on the pages, without a restart."""


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


# Any: JSON of the pages
def changed(settings: ServiceSettings, kept: Mapping[str, Any]) -> ServiceSettings:
    """The settings with what was changed on the pages; raises BadSettings."""
    strange = set(kept) - CHANGEABLE
    if strange:
        raise BadSettings(
            f"{', '.join(sorted(strange))} cannot be changed here: theatrum.toml can"
        )
    return read(settings.model_dump() | dict(kept))


def _sentence(fault: Any) -> str:  # Any: pydantic's record of a fault
    name = ".".join(["dicom_client", *(str(part) for part in fault["loc"])])
    if fault["type"] == "extra_forbidden":
        return f"{name} is not a setting: docs/dicom_client.md names those there are."
    return f"{name}: {fault['msg']}."
