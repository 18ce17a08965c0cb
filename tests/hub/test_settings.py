"""Settings: where they come from, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub import settings
from hub.settings import SettingsError, load


def test_the_environment_is_stronger_than_the_file(tmp_path: Path) -> None:
    (tmp_path / "theatrum.toml").write_text("port = 9001\nidle_timeout_s = 600\n")
    chosen = _load(tmp_path, THEATRUM_PORT="9002")
    assert (chosen.port, chosen.idle_timeout_s) == (9002, 600)


def test_without_file_and_variables_the_hub_stays_on_loopback(tmp_path: Path) -> None:
    chosen = _load(tmp_path)
    assert (chosen.bind, chosen.port, chosen.mode) == ("127.0.0.1", 8000, "demo")


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("THEATRUM_PORT", "eighty", "integer"),
        ("THEATRUM_PORT", "70000", "65535"),
        ("THEATRUM_MODE", "open", "'demo' or 'accounts'"),
        ("THEATRUM_PROXY", "traefik", "'auto', 'node' or 'python'"),
        ("THEATRUM_BASE_URL", "jupyter", "pattern"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_what_is_allowed(
    tmp_path: Path, variable: str, value: str, allowed: str
) -> None:
    with pytest.raises(SettingsError, match=variable) as caught:
        _load(tmp_path, **{variable: value})
    assert allowed in str(caught.value)
    assert value in str(caught.value)


def test_a_misspelt_variable_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Did you mean THEATRUM_PORT"):
        _load(tmp_path, THEATRUM_PROT="9000")


def test_a_misspelt_name_in_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theatrum.toml").write_text("prot = 9000\n")
    with pytest.raises(SettingsError, match=r"prot in .*theatrum.toml.*mean port"):
        _load(tmp_path)


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "theatrum.toml").write_text("port: 9000\n")
    with pytest.raises(SettingsError, match=r"theatrum.toml is not valid TOML"):
        _load(tmp_path)


def test_settings_survive_the_way_through_the_environment(tmp_path: Path) -> None:
    chosen = _load(tmp_path, THEATRUM_PORT="9003", THEATRUM_DEMO="false")
    assert load(settings.as_environment(chosen)) == chosen


def test_every_setting_says_what_it_means() -> None:
    for name, field in settings.Settings.model_fields.items():
        assert field.description, f"{name} has no docstring"


def _load(home: Path, **variables: str) -> settings.Settings:
    return load({"THEATRUM_HOME": str(home), **variables})
