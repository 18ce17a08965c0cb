"""Runs beside the hub: `python -m services.dicom_client`, and `... worker`."""

from __future__ import annotations

import os
import sys

from hub import pages, settings
from hub.durable.json_log import start_logging
from hub.signin import SignIn
from services.dicom_client.app import make_app
from services.dicom_client.opening import LOG_FIELDS, open_service
from services.dicom_client.serving import receiving
from services.dicom_client.settings import read
from services.dicom_client.worker import work


def main() -> None:
    """The web server at the address that the hub gave it, or a worker."""
    os.umask(0o077)
    installation = settings.load()
    chosen = read(installation.dicom_client)
    if sys.argv[1:] == ["worker"]:
        work(installation.home, chosen, database_url=installation.database_url)
        return
    service = open_service(
        installation.home, chosen, database_url=installation.database_url
    )
    app = make_app(service, os.environ["JUPYTERHUB_SERVICE_PREFIX"])
    SignIn().install(app)
    start_logging(LOG_FIELDS)
    with receiving(service):
        pages.serve(app)


if __name__ == "__main__":
    main()
