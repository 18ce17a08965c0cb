"""How a person's notebook server is started: the two modes, one difference.

Both give a person the folder `homes/<name>` as home. In demo mode the server runs
under the account that runs the hub; in accounts mode under the person's own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyterhub.spawner import LocalProcessSpawner
from traitlets import Dict, Unicode

from hub import system_accounts


class HomeSpawner(LocalProcessSpawner):  # type: ignore[misc]  # jupyterhub is untyped
    """Demo mode: everybody under one system account, each in an own folder."""

    homes = Unicode(config=True, help="The folder that holds a home for each person")
    base_url = Unicode("/", config=True, help="The hub's path, for links in them")
    welcome = Dict(
        config=True, help="Text by file name, put into a home when it is made"
    )

    @property
    def home(self) -> Path:
        # The hub's names are checked by its authenticator: no slash can be in one.
        return Path(self.homes, self.user.name)

    def make_home(self) -> None:
        """Make the person's home with the welcome files, once."""
        if self.home.exists():
            return
        staging = self.home.with_name(f".{self.user.name}.new")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(mode=0o700)
        for name, text in self.welcome.items():
            below = text.replace("](/", f"]({self.base_url}")
            (staging / name).write_text(below, "utf-8")
        self.hand_over(staging)
        staging.rename(self.home)

    def hand_over(self, _folder: Path) -> None:
        """Nothing to do where all share one account."""

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        env["HOME"] = str(self.home)
        env["USER"] = self.user.name
        env.setdefault("SHELL", "/bin/bash")
        return env

    def make_preexec_fn(self, _name: str) -> Callable[[], None]:
        home = self.home

        def enter() -> None:
            os.chdir(home)

        return enter

    # Any: JupyterHub's own signature, (ip, port).
    async def start(self) -> Any:
        self.make_home()
        return await super().start()


class AccountSpawner(HomeSpawner):
    """Accounts mode: each person under the system account of their name."""

    def make_home(self) -> None:
        system_accounts.ensure_person(self.user.name, self.home)
        super().make_home()

    def hand_over(self, folder: Path) -> None:
        owner = system_accounts.ensure_person(self.user.name, self.home)
        system_accounts.give_tree(folder, owner)

    def make_preexec_fn(self, _name: str) -> Callable[[], None]:
        owner = system_accounts.ensure_person(self.user.name, self.home)
        home = self.home

        def enter() -> None:
            os.umask(0o077)
            os.initgroups(owner.pw_name, owner.pw_gid)
            os.setgid(owner.pw_gid)
            os.setuid(owner.pw_uid)
            os.chdir(home)

        return enter
