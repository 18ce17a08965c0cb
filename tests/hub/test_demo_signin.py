"""The demo's accounts."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from hub.demo_signin import ACCOUNTS, DemoAuthenticator, passwords


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "demo-accounts.json"


def test_each_demo_account_has_its_own_password(file: Path) -> None:
    made = passwords(file)
    assert tuple(made) == ACCOUNTS
    assert len(set(made.values())) == len(ACCOUNTS)


def test_passwords_stay_the_same_at_the_next_start(file: Path) -> None:
    assert passwords(file) == passwords(file)


def test_only_the_owner_reads_the_password_file(file: Path) -> None:
    passwords(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_right_password_signs_in(file: Path) -> None:
    secret = passwords(file)["student1"]
    assert _sign_in(file, "student1", secret) == "student1"


@pytest.mark.parametrize("given", ["", "wrong", "pässword"])
def test_a_wrong_password_does_not_sign_in(file: Path, given: str) -> None:
    assert _sign_in(file, "student1", given) is None


def test_anothers_password_does_not_sign_in(file: Path) -> None:
    secret = passwords(file)["student2"]
    assert _sign_in(file, "student1", secret) is None


def test_a_name_that_is_no_account_does_not_sign_in(file: Path) -> None:
    assert _sign_in(file, "root", "") is None


def _sign_in(file: Path, name: str, password: str) -> str | None:
    authenticator = DemoAuthenticator(password_file=str(file))
    given = {"username": name, "password": password}
    return asyncio.run(authenticator.authenticate(None, given))
