"""Runs the catalogue as a hub-managed service."""

import os

from hub import pages, settings
from services.catalog.app import make_app

pages.serve(make_app(settings.load(), os.environ["THEATRUM_TILE_KEY"]))
