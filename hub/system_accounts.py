"""System accounts, for the accounts mode: who runs what, and who may read what.

A person's server runs under the system account of the same name, made on first
sign-in; the services share one account, and each course's grading has its own, so
that a student's code, which grading runs, can reach no other course.

Accounts belong to the machine, files to the home folder: where the machine is new (a
container, a copy brought back), accounts get the numbers that the files have.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hub.course import Course
from hub.home import Home

SERVICES = "theatrum-services"
_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
# Debian's and Red Hat's first uid for people; below it are the system's own accounts.
FIRST_PERSON_UID = 1000


class AccountError(Exception):
    """A system account cannot be used or made; the message says what to do."""


def refuse_if_impossible(checkout: Path, home: Path) -> None:
    """Raise AccountError where the accounts mode cannot work on this machine."""
    if os.geteuid() != 0:
        raise AccountError(
            "The accounts mode starts servers under other accounts: run it as root, "
            "or set mode to demo."
        )
    if shutil.which("useradd") is None:
        raise AccountError("The accounts mode needs the command useradd (Linux).")
    for path in (Path(sys.executable).resolve(), checkout, home):
        closed = _closed_parent(path)
        if closed is not None:
            raise AccountError(
                f"Other accounts cannot reach {path}, because {closed} is closed to "
                "them: move it to a folder that all may enter, such as /opt, and use "
                "the system's own Python."
            )


def _closed_parent(path: Path) -> Path | None:
    """The first folder on the way to `path` that other accounts cannot enter."""
    for folder in reversed(path.parents):
        if folder.exists() and not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


def ensure_person(name: str, home: Path) -> pwd.struct_passwd:
    """The account of a person, made where missing; never one of the system's own."""
    entry = _ensure(name, home, owned=home, system=False)
    if entry.pw_uid < FIRST_PERSON_UID:
        raise AccountError(
            f"{name} is an account of the system itself: sign in by another name."
        )
    return entry


def ensure_service(name: str, home: Path, owned: Path) -> pwd.struct_passwd:
    """The account of a service, made where missing, without a way to sign in.

    Parameters
    ----------
    owned
        What is the account's, if it ever was there.
    """
    entry = _ensure(name, home, owned=owned, system=True)
    if entry.pw_uid == 0:
        raise AccountError(f"{name} must not be root.")
    return entry


def _ensure(name: str, home: Path, *, owned: Path, system: bool) -> pwd.struct_passwd:
    if not _NAME.fullmatch(name):
        raise AccountError(
            f"{name!r} cannot be a system account: use up to 32 small letters, "
            "digits, hyphens and underscores, a letter first."
        )
    try:
        return pwd.getpwnam(name)
    except KeyError:
        pass
    command = ["useradd", "--no-create-home", "--home-dir", str(home)]
    kind = (
        ["--system", "--shell", "/usr/sbin/nologin"]
        if system
        else ["--user-group", "--shell", "/bin/bash"]
    )
    uid = owned.stat().st_uid if owned.exists() else 0
    number = ["--uid", str(uid)] if uid >= (1 if system else FIRST_PERSON_UID) else []
    made = subprocess.run(
        [*command, *kind, *number, name], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise AccountError(f"useradd could not make {name}: {made.stderr.strip()}")
    return pwd.getpwnam(name)


def give(path: Path, owner: pwd.struct_passwd, mode: int) -> None:
    """Hand `path` (not what is in it) to an account; refuses a symbolic link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fchown(descriptor, owner.pw_uid, owner.pw_gid)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def give_tree(folder: Path, owner: pwd.struct_passwd) -> None:
    """Hand a folder and all in it to an account, closed to all others.

    Only for folders that nobody else could write to so far: a tree that is being
    changed under us could be made to point elsewhere.
    """
    for parent, folders, files in os.walk(folder):
        for name in files:
            give(Path(parent) / name, owner, 0o600)
        for name in folders:
            give(Path(parent) / name, owner, 0o700)
    give(folder, owner, 0o700)


def prepare(home: Home, courses: Sequence[Course]) -> None:
    """Hand the parts of the home folder to the accounts that work on them, once."""
    services = ensure_service(SERVICES, home.root, home.catalog)
    for folder in sorted(home.homes.glob("[!.]*")):
        # Before anybody new gets the number that their files have.
        ensure_person(folder.name, folder)
    root = pwd.getpwuid(0)
    give(home.root, root, 0o711)
    for folder in (
        home.catalog,
        home.images,
        home.derived,
        home.cache,
        home.exchange,
        home.dashboards,
        home.ia_api,
        home.phi,
    ):
        if folder.stat().st_uid == 0:
            give_tree(folder, services)
    settings = home.root / "theatrum.toml"
    if settings.exists():
        # Whoever could write to it could have everything run as root.
        readable = pwd.struct_passwd((*root[:3], services.pw_gid, *root[4:]))
        give(settings, readable, 0o640)
    for folder in (home.homes, home.courses):
        give(folder, root, 0o711)
    for course in courses:
        folder = home.courses / course.id
        grader = ensure_service(course.account, folder, folder)
        if folder.stat().st_uid == 0:
            give_tree(folder, grader)


def become(name: str) -> None:
    """Go on as another account, for good; only root can."""
    entry = pwd.getpwnam(name)
    os.initgroups(entry.pw_name, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.umask(0o077)
