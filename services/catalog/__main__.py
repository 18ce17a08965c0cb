"""Runs the catalogue as a hub-managed service, or its worker: `worker`."""

import os
import sys

from hub import pages, settings

if sys.argv[1:] == ["worker"]:
    from services.catalog import worker

    worker.main(settings.load())
else:
    from services.catalog.app import make_app

    pages.serve(make_app(settings.load(), os.environ["THEATRUM_TILE_KEY"]))
