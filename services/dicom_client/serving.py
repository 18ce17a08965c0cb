"""Runs the web server by itself, and the receiver of images beside it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from hub.durable import health
from hub.durable.json_log import start_logging
from services.dicom_client import local_sign_in
from services.dicom_client.app import make_app
from services.dicom_client.figures import Figures
from services.dicom_client.opening import LOG_FIELDS, Service, open_service
from services.dicom_client.reception import Reception
from services.dicom_client.settings import ServiceSettings

log = logging.getLogger("theatrum.dicom_client")


def serve(
    home: Path,
    settings: ServiceSettings,
    *,
    database_url: str,
    bind: str,
    port: int,
) -> None:
    """Serve until told to stop (SIGTERM, SIGINT)."""
    start_logging(LOG_FIELDS)
    service = open_service(home, settings, database_url=database_url)
    app = make_app(service, "/")
    local_sign_in.install(app, service)
    config = uvicorn.Config(
        app,
        host=bind,
        port=port,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=2,
        proxy_headers=False,
        server_header=False,
    )
    try:
        with (
            receiving(service),
            health.serving(
                settings.metrics_bind,
                health.ports_of(settings.metrics_port, worker=False),
                app.state.ready,
                Figures(service),
            ),
        ):
            log.info("the pages are served at port %d", port)
            uvicorn.Server(config).run()
    finally:
        service.close()


@contextmanager
def receiving(service: Service) -> Iterator[None]:
    """Receive images by C-STORE meanwhile, where a port is set."""
    if not service.base.scp.port:
        yield
        return
    with Reception(service):
        yield
