"""The de-identification profile and the site's key, for all jobs of an installation.

The key lies in the home, for the service's account only. Pseudonyms come from it, and
mappings are sealed with it: without the file no result can be given back to its
patient, so it belongs into every backup.
"""

from __future__ import annotations

import fcntl
import secrets
from pathlib import Path

from theatrum.deidentify import DeidentifyError, Profile, load_profile, read_key

from hub.home import private_key
from services.dicom_client.errors import NotPackable
from services.dicom_client.settings import BadSettings

KEY_FILE = "deidentify.key"


class Profiles:
    """One profile and one key; safe to share between threads."""

    def __init__(self, folder: Path, profile: str) -> None:
        with (folder / "deidentify.lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            private_key(folder / KEY_FILE, secrets.token_bytes(32))
        try:
            self.key = read_key(folder / KEY_FILE)
            self._profile = load_profile(profile)
        except DeidentifyError as err:
            raise BadSettings(str(err)) from err

    def profile(self) -> Profile:
        return self._profile

    def of_digest(self, digest: str) -> Profile:
        """The profile that a job began with; NotPackable where it is another now."""
        if digest and digest != self._profile.digest:
            raise NotPackable(
                "profile",
                "the profile has changed since this job was de-identified: start a new "
                "job",
            )
        return self._profile
