"""Every setting of an installation, read once and refused early when wrong.

The sources, weakest first: the defaults below, `theatrum.toml` in the home folder,
`THEATRUM_*` in the environment. A value that is not allowed, and a name that is not
a setting, stop the start with a sentence that says which one and what is allowed:
a misspelt setting that is passed over in silence costs an afternoon.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
)
from pydantic_settings import SettingsConfigDict as Config

from hub.leftovers import instance

ROOT = Path(__file__).resolve().parent.parent
PREFIX = "THEATRUM_"

# Set by the hub for the processes that it starts, or by the tests: not settings.
NOT_SETTINGS = frozenset(
    {
        "THEATRUM_CATALOG_URL",
        "THEATRUM_COURSE",
        "THEATRUM_COURSES_URL",
        "THEATRUM_COURSE_DIR",
        "THEATRUM_IA_API_URL",
        "THEATRUM_INSTANCE",
        "THEATRUM_TEST_DATA",
        "THEATRUM_TILE_CACHE",
        "THEATRUM_TILE_KEY",
        "THEATRUM_TILE_LANE_PORT",
    }
)


class SettingsError(Exception):
    """A setting is wrong; the message names it and says what is allowed."""


class Settings(BaseSettings):
    """What an administrator may choose. Frozen: read once, passed by parameter."""

    model_config = Config(
        env_prefix=PREFIX, frozen=True, extra="forbid", use_attribute_docstrings=True
    )

    home: Path = ROOT / "var"
    """The folder that holds all state: databases, slides, courses, people's files."""

    mode: Literal["demo", "accounts"] = "demo"
    """`demo`: every person's server runs under the one system account that started
    the hub, so nobody is isolated from anybody. `accounts`: needs root; each person
    gets a system account and a home folder that only they can read."""

    bind: str = "127.0.0.1"
    """The address the hub listens on. Anything but loopback is reachable by others:
    put a proxy with TLS in front first."""

    port: int = Field(8000, ge=1, le=65535)
    """The port of the one public address."""

    base_url: str = Field("/", pattern=r"^/([A-Za-z0-9_~-]+/)*$")
    """The path under which the hub lives; begins and ends with a slash."""

    proxy: Literal["auto", "node", "python"] = "auto"
    """Which configurable-http-proxy runs: `node` serves four times as many requests,
    `python` needs nothing but this environment, `auto` takes node where it is."""

    demo: bool = True
    """Whether the demo slide and the demo course are made at the first start."""

    idle_timeout_s: int = Field(3600, ge=60)
    """Seconds without activity after which a person's server is stopped. Smaller
    saves memory (about 200 MB a person); larger spares people the wait on return."""

    tile_life_s: int = Field(86_400, ge=60, le=31_536_000)
    """Seconds that a tile address stays the same. Larger: browsers' caches help for
    longer; smaller: a right that was taken away ends sooner."""

    tile_cache_bytes: int = Field(2_000_000_000, ge=0)
    """Disk for tiles that had to be computed. Stored tiles are never copied there."""

    tile_workers: int = Field(1, ge=1, le=64)
    """Processes of the tile service. One answers thousands of stored tiles a second
    and composes on all cores; more help only on a machine with many cores."""

    tile_cors: str = ""
    """Origins whose pages may read pixels of the tile service, with spaces between
    them, such as `https://viewer.example`; `*` for all. More lets other viewers in;
    each can read what its visitors hold addresses of."""

    tile_metrics_port: int = Field(0, ge=0, le=65535)
    """The loopback port on which the tile service tells Prometheus its figures, and
    the next ones for further workers; 0 for none."""

    database_url: str = ""
    """Where the catalogue, the IA-API service and the DICOM client keep what they know:
    empty for SQLite in the home folder, `postgresql+psycopg://USER@HOST/NAME` for
    workers on several machines."""

    catalog_engine: str = "local"
    """Where batches that are ordered from the catalogue's pages and interface are done:
    `local`, or the address of a cluster such as `tcp://scheduler:8786`
    (docs/catalog_flows.md). A cluster does more at once; it must see the same files."""

    catalog_engine_workers: int = Field(0, ge=0, le=1024)
    """Worker processes of a cluster that is made for a batch; 0 for one a core. More
    finish earlier and leave less of the machine to the people on it."""

    catalog_sources: str = ""
    """Addresses from which editors of projects may have images taken (`POST /ingest`),
    with spaces between them, such as `s3://study/ https://data.example/open/`: whatever
    lies below one. The server asks them with its own credentials; none by default."""

    catalog_upload_bytes: int = Field(200_000_000_000, ge=1)
    """Bytes that one person's unfinished uploads may have together. Larger takes larger
    files at once; the disk must hold all people's."""

    # Any: a table of its own, which the service checks (services/ia_api/settings.py).
    ia_api: dict[str, Any] = {}
    """The table `[ia_api]`: the apps for Sectra's pathology server. In the environment
    it is one JSON object."""

    # Any: the same (services/dicom_client/settings.py).
    dicom_client: dict[str, Any] = {}
    """The table `[dicom_client]`: the segmentation client. In the environment it is one
    JSON object."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 (the framework's)
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` gives, which reads the file and the environment itself."""
        return (init_settings,)


def load(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this process.

    Raises
    ------
    SettingsError
        Where a name is no setting, or a value is not allowed.
    """
    _refuse_unknown(environment)
    given = environment.get(PREFIX + "HOME")
    home = Path(given or Settings.model_fields["home"].default).expanduser().absolute()
    file = home / "theatrum.toml"
    variables = EnvSettingsSource(Settings)
    variables.env_vars = {name.lower(): value for name, value in environment.items()}
    try:
        settings = Settings(**(_read(file) | variables()))
    except ValidationError as err:
        raise SettingsError(_sentences(err, file, environment)) from err
    return settings.model_copy(update={"home": home})


def as_environment(settings: Settings) -> dict[str, str]:
    """The settings as `THEATRUM_*` variables, for a process that we start."""
    return {
        PREFIX + name.upper(): json.dumps(value)
        if isinstance(value, dict)
        else str(value)
        for name, value in settings.model_dump(mode="json").items()
    }


def _read(file: Path) -> dict[str, Any]:  # Any: whatever TOML holds, checked next
    if not file.is_file():
        return {}
    try:
        table = tomllib.loads(file.read_text("utf-8"))
        if "home" in table:
            raise SettingsError(
                f"home in {file} is not a setting: this file lies in it. Set "
                f"{PREFIX}HOME, or use --home."
            )
        return table
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise SettingsError(f"{file} is not valid TOML: {err}") from err


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in environment:
        if not name.startswith(PREFIX) or name in known or name in NOT_SETTINGS:
            continue
        raise SettingsError(f"{name} is not a setting. {_nearest(name, known)}")


def _nearest(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"Did you mean {near[0]}?"
    return f"The settings are {', '.join(sorted(known))}."


def _sentences(err: ValidationError, file: Path, environment: Mapping[str, str]) -> str:
    """One line for each wrong setting: its name, where it stands, what is allowed."""
    lines = []
    for fault in err.errors():
        name = str(fault["loc"][0])
        variable = PREFIX + name.upper()
        where = variable if variable in environment else f"{name} in {file}"
        if fault["type"] == "extra_forbidden":
            known = set(Settings.model_fields)
            lines.append(f"{where} is not a setting. {_nearest(name, known)}")
            continue
        lines.append(f"{where} is {fault['input']!r}: {fault['msg']}.")
    return "\n".join(lines)


def check_mode(settings: Settings) -> None:
    """Raise SettingsError where the home was made in another mode, or by another.

    Files would belong to accounts that cannot work on them any more.
    """
    noted = settings.home / "mode"
    mode = f"{settings.mode} {os.geteuid()}"
    if noted.is_file() and noted.read_text("utf-8") != mode:
        raise SettingsError(
            f"{settings.home} was made as `{noted.read_text('utf-8')}` (mode and user "
            f"id), and this start is `{mode}`: start it as before, or choose another "
            "home folder."
        )


def main() -> None:
    """Print the settings as JSON, or say what is wrong with them."""
    try:
        chosen = load()
        check_mode(chosen)
        told = chosen.model_dump(mode="json") | {"instance": instance(chosen.home)}
        print(json.dumps(told))  # noqa: T201 (what this command is for)
    except SettingsError as err:
        print(err, file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from err


if __name__ == "__main__":
    main()
