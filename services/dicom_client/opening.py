"""What both processes, web server and worker, open at their start."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from hub.durable.database import Database
from hub.durable.sealing import Sealer
from hub.home import Home
from services.dicom_client.folders import Folders
from services.dicom_client.jobs import Jobs
from services.dicom_client.keeping import Keeper
from services.dicom_client.profiles import Profiles
from services.dicom_client.servers import Servers
from services.dicom_client.settings import ServiceSettings

LOG_FIELDS = ("job", "state", "code", "worker", "who", "action", "target", "seconds")
_MIGRATIONS = Path(__file__).parent / "migrations"
_SETTINGS_LIFE_S = 2.0


class Service:
    """The installation's database and all that hangs on it; shared by threads."""

    def __init__(self, home: Path, base: ServiceSettings, database_url: str) -> None:
        folder = Home(home).dicom_client
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.home = home
        self.base = base
        self.profiles = Profiles(folder, base.profile)
        self.database = Database(database_url, folder, _MIGRATIONS)
        self.sealer = Sealer(folder / "secrets.key")
        self.keeper = Keeper(self.database, self.sealer)
        self.jobs = Jobs(self.database, self.sealer)
        self.folders = Folders(home)
        self._lock = threading.Lock()
        self._settings = (0.0, base)
        self.servers = Servers(self.database, self.keeper, self.settings)

    def settings(self) -> ServiceSettings:
        """The settings with what was changed on the pages, at most 2 s old."""
        with self._lock:
            at, chosen = self._settings
            if time.monotonic() - at > _SETTINGS_LIFE_S or not at:
                chosen = self.keeper.settings(self.base)
                self._settings = (time.monotonic(), chosen)
            return chosen

    def close(self) -> None:
        self.servers.close()
        self.database.close()


def open_service(
    home: Path, settings: ServiceSettings, *, database_url: str = ""
) -> Service:
    """Open the database and all that hangs on it; BadSettings says what is wrong."""
    return Service(home, settings, database_url)
