"""Runs the web server by itself: `theatrum ia-api serve`."""

from __future__ import annotations

import logging
from pathlib import Path

import uvicorn

from hub.durable import health
from hub.durable.json_log import start_logging
from services.ia_api import jobs
from services.ia_api.app import app_url, make_app
from services.ia_api.audit import LOG_FIELDS
from services.ia_api.health import Queue
from services.ia_api.opening import open_service, settled
from services.ia_api.servers import Patience
from services.ia_api.settings import ServiceSettings

log = logging.getLogger("theatrum.ia_api")

# Somebody waits in the viewer: far less patience than a worker has.
PATIENCE = Patience(connect_s=3.0, read_s=8.0)


def serve(
    home: Path,
    settings: ServiceSettings,
    *,
    database_url: str,
    bind: str,
    port: int,
) -> None:
    """Serve until told to stop (SIGTERM, SIGINT); requests under way are answered."""
    start_logging(LOG_FIELDS)
    service = open_service(home, settings, database_url=database_url, patience=PATIENCE)
    app = make_app(service)
    for one in service.apps.values():
        log.info("an app is served", extra={"app": one.id})
    if service.apps:
        first = next(iter(service.apps.values()))
        log.info(
            "register addresses such as %s",
            _without_secret(app_url(service, first), settings),
        )
    config = uvicorn.Config(
        app,
        host=bind,
        port=port,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=int(settings.answer_deadline_s) + 1,
        proxy_headers=False,
        server_header=False,
    )
    settled()
    try:
        with health.serving(
            settings.metrics_bind,
            health.ports_of(settings.metrics_port, worker=False),
            app.state.ready,
            Queue(lambda: jobs.figures(service.store)),
        ):
            uvicorn.Server(config).run()
    finally:
        service.servers.close()
        service.store.database.close()


def _without_secret(url: str, settings: ServiceSettings) -> str:
    secret = settings.path_secret.get_secret_value()
    return url.replace(secret, "[path_secret]") if secret else url
