"""Runs the service beside the hub: `python -m services.ia_api`, and `... worker`."""

from __future__ import annotations

import os
import sys

from hub import pages, settings
from hub.durable import health
from hub.signin import SignIn
from services.ia_api import jobs
from services.ia_api.app import make_app
from services.ia_api.health import Queue
from services.ia_api.opening import open_service, settled
from services.ia_api.pages import install as install_pages
from services.ia_api.serving import PATIENCE
from services.ia_api.settings import read
from services.ia_api.worker import work


def main() -> None:
    """The web server at the address that the hub gave it, or a worker."""
    os.umask(0o077)
    installation = settings.load()
    public = {"public_url": os.environ.get("THEATRUM_IA_API_URL", "")}
    chosen = read({**public, **installation.ia_api})
    if sys.argv[1:] == ["worker"]:
        work(
            installation.home,
            chosen,
            database_url=installation.database_url,
            metrics_ports=health.ports_of(chosen.metrics_port, worker=True),
        )
        return
    service = open_service(
        installation.home,
        chosen,
        database_url=installation.database_url,
        patience=PATIENCE,
    )
    app = make_app(service, os.environ["JUPYTERHUB_SERVICE_PREFIX"].rstrip("/"))
    SignIn().install(app)
    install_pages(app)
    settled()
    with health.serving(
        chosen.metrics_bind,
        health.ports_of(chosen.metrics_port, worker=False),
        app.state.ready,
        Queue(lambda: jobs.figures(service.store)),
    ):
        pages.serve(app)


if __name__ == "__main__":
    main()
