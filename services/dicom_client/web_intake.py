"""Series of a PACS: asked for by QIDO-RS now and then, fetched by WADO-RS."""

from __future__ import annotations

import logging

from services.dicom_client.arrivals import series_key
from services.dicom_client.dicomweb import DicomWeb, DicomWebServer
from services.dicom_client.dicomweb_source import fetch, find_series
from services.dicom_client.errors import PeerError
from services.dicom_client.opening import Service
from services.dicom_client.staging import Quota, Staging

log = logging.getLogger("theatrum.dicom_client")

DICOMWEB = "dicomweb"
"""The source of what was fetched."""
PULL_TOKEN = "dicomweb-token"  # noqa: S105 (the name of a secret)
_MODALITIES = ("CT", "MR", "PT")


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
        if not chosen.url:
            return 0
        token = self._service.keeper.secret(PULL_TOKEN) or ""
        count = 0
        try:
            with DicomWeb(DicomWebServer(chosen.url, token=token)) as web:
                for remote in find_series(web, chosen.query, _MODALITIES):
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
