"""Runs Voilà as a hub-managed service: `python -m services.dashboards FOLDER`."""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from traitlets.config import Config
from voila.app import Voila

from services.dashboards.identity import VIEWER_HEADER, DashboardIdentityProvider

# Voilà looks for its templates where Jupyter keeps shared files.
os.environ["JUPYTER_PATH"] = str(Path(__file__).with_name("share"))
folder = sys.argv[1]
config = Config()
config.Voila.ip = "127.0.0.1"
config.Voila.port = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"]).port
config.Voila.port_retries = 0
config.Voila.base_url = os.environ["JUPYTERHUB_SERVICE_PREFIX"]
config.Voila.open_browser = False
config.Voila.identity_provider_class = DashboardIdentityProvider
config.VoilaConfiguration.template = "theatrum"
config.VoilaConfiguration.classic_tree = True
config.VoilaConfiguration.http_header_envs = [VIEWER_HEADER]
config.VoilaConfiguration.show_tracebacks = False
config.VoilaConfiguration.file_allowlist = [r".*\.(png|jpg|svg)"]
# Their lab halves look for services that a dashboard does not have.
config.VoilaConfiguration.extension_denylist = [
    "@jupyter/nbgrader",
    "@jupyterhub/jupyter-server-proxy",
]
# A page that was fetched without a browser leaves its kernel behind.
config.MappingKernelManager.cull_idle_timeout = 600
config.MappingKernelManager.cull_interval = 60
config.MappingKernelManager.cull_connected = False

Voila.launch_instance(argv=[folder], config=config)
