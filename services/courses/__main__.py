"""Runs the courses service as a hub-managed service."""

from hub import pages, settings
from services.courses.app import make_app

pages.serve(make_app(settings.load()))
