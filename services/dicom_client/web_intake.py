"""Series of a PACS: asked for by QIDO-RS now and then, fetched by WADO-RS."""

from __future__ import annotations

import logging

from services.dicom_client.arrivals import series_key
from services.dicom_client.dicomweb import DicomWeb
from services.dicom_client.dicomweb_source import fetch, find_series
from services.dicom_client.errors import PeerError
from services.dicom_client.opening import Service
from services.dicom_client.staging import Quota, Staging
from services.dicom_client.web_servers import pulled_from

log = logging.getLogger("theatrum.dicom_client")

DICOMWEB = "dicomweb"
"""The source of what was fetched."""


class WebIntake:
    """The duty of one worker; not for several threads at once."""

    def __init__(self, service: Service) -> None:
        self._service = service
        settings = service.settings()
        self._staging = Staging(
            service.folders.incoming,
            Quota(settings.scp.quota_bytes, settings.min_free_bytes),
        )

    def pull(self) -> int:
        """Fetch what is new; how many series. A PACS that is away is asked again."""
        chosen = self._service.settings().dicomweb
        server = pulled_from(chosen, self._service.keeper)
        if server is None:
            return 0
        count = 0
        try:
            with DicomWeb(server) as web:
                for remote in find_series(web, chosen.query, chosen.modalities):
                    key = series_key(remote.series)
                    if self._service.jobs.is_known(key, remote.instances):
                        continue
                    got = fetch(web, remote, self._staging)
                    jobs = self._service.jobs
                    jobs.note(DICOMWEB, got.arrivals)
                    jobs.expect(remote.series, remote.instances, released=got.complete)
                    count += 1
        except (PeerError, OSError) as err:
            code = err.code if isinstance(err, PeerError) else "disk"
            log.warning("the PACS could not be asked", extra={"code": code})
        return count
