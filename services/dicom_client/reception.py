"""Images that are sent to us by C-STORE: kept, noted, and only then answered."""

from __future__ import annotations

import logging
from types import TracebackType

from services.dicom_client.arrivals import Arrival
from services.dicom_client.opening import Service
from services.dicom_client.settings import Scp
from services.dicom_client.staging import Quota, Staging
from services.dicom_client.store_scp import AssociationFacts, ScpSettings, StoreScp
from services.dicom_client.tls import ServerTls

log = logging.getLogger("theatrum.dicom_client")

SCP = "scp"
"""The source of what was received."""


class Reception:
    """The receiver, from the beginning of the block to its end."""

    def __init__(self, service: Service) -> None:
        self._service = service
        settings = service.settings()
        self._staging = Staging(
            service.folders.incoming,
            Quota(settings.scp.quota_bytes, settings.min_free_bytes),
        )
        self._scp = StoreScp(
            scp_settings(settings.scp), self._staging, self._keep, self._ended
        )

    def __enter__(self) -> Reception:
        # What lay there when the last process died, noted or not.
        self._staging.sweep()
        for arrival in self._staging.staged():
            self._service.jobs.note(SCP, [arrival])
        self._scp.start()
        log.info("images are received at port %d", self._scp.port)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._scp.stop()

    def _keep(self, arrival: Arrival, _facts: AssociationFacts) -> int:
        self._service.jobs.note(SCP, [arrival])
        return 0

    def _ended(self, facts: AssociationFacts) -> None:
        for series in facts.series:
            self._service.jobs.expect(series, None, released=facts.how == "released")


def scp_settings(scp: Scp) -> ScpSettings:
    """What the receiver wants of the settings."""
    tls = None
    if scp.tls_certificate is not None and scp.tls_key is not None:
        tls = ServerTls(scp.tls_certificate, scp.tls_key, scp.tls_ca)
    return ScpSettings(
        host=scp.bind,
        port=scp.port,
        ae_title=scp.ae_title,
        calling_ae_titles=scp.allow_ae,
        networks=scp.allow_clients,
        storage=scp.storage,
        tls=tls,
        associations=scp.max_associations,
        largest_bytes=scp.largest_bytes,
        idle_s=scp.idle_s,
    )
