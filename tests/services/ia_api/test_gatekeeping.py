"""Who may be called back, who may call, which slides are taken, what is settled."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.ia_api.apps import registered, registration
from services.ia_api.errors import Busy
from services.ia_api.guard import Rate
from services.ia_api.origins import caller, is_in, is_listed
from services.ia_api.rules import refusal
from services.ia_api.settings import (
    AppSettings,
    BadSettings,
    ServiceSettings,
    Triage,
    read,
)
from services.ia_api.slide_info import SlideInfo, slide_info

ALLOWED = ("https://sps.example.org", "http://127.0.0.1:8700")


@pytest.mark.parametrize(
    "url",
    [
        "https://sps.example.org/v1",
        "https://sps.example.org:443/v1",
        "https://SPS.example.org/v1",
        "http://127.0.0.1:8700",
    ],
)
def test_a_listed_server_may_be_called_back(url: str) -> None:
    assert is_listed(url, ALLOWED)


@pytest.mark.parametrize(
    "url",
    [
        "http://sps.example.org/v1",
        "https://sps.example.org:8443/v1",
        "https://sps.example.org.evil.example/v1",
        "https://evil.example/https://sps.example.org",
        "https://sps.example.org@evil.example/v1",
        "https://user@sps.example.org/v1",
        "https://sps.example.org\\@evil.example/",
        "https://sps.example.org/v1?next=x",
        "https://sps.example.org/v1#x",
        "http://127.0.0.1:8701",
        "http://localhost:8700",
        "file:///etc/passwd",
        "https://",
        "",
    ],
)
def test_no_other_server_is_called_back(url: str) -> None:
    assert not is_listed(url, ALLOWED)


def test_a_forwarded_address_counts_only_from_a_proxy_of_ours() -> None:
    proxies = ["10.0.0.0/8"]
    assert caller("192.0.2.1", "198.51.100.7", proxies) == "192.0.2.1"
    assert caller("10.1.1.1", "198.51.100.7", proxies) == "198.51.100.7"
    # What the caller wrote in front of it is not believed.
    assert caller("10.1.1.1", "127.0.0.1, 198.51.100.7", proxies) == "198.51.100.7"
    assert is_in("::ffff:10.1.1.1", proxies)
    assert not is_in("nonsense", proxies)


def test_a_rate_is_counted_for_each_caller() -> None:
    rate = Rate(3)
    for _ in range(3):
        rate.take("one")
    with pytest.raises(Busy):
        rate.take("one")
    rate.take("other")


def _slide(**other: object) -> SlideInfo:
    return slide_info(
        {
            "id": "sl-1",
            "isStreamable": True,
            "imageSize": {"width": 100, "height": 80},
            "micronsPerPixel": 0.25,
            "fileFormat": {"mimeType": "application/dicom"},
            "staining": {"displayName": "Ki-67 (MIB-1)"},
            "specimen": {"anatomy": "Mamma"},
            **other,
        }
    )


@pytest.mark.parametrize(
    ("rules", "slide", "reason"),
    [
        (None, {}, "no notifications"),
        (Triage(), {}, None),
        (Triage(stain="ki-?67"), {}, None),
        (Triage(stain="^HE$"), {}, "stain"),
        (Triage(organ="mamma|breast"), {}, None),
        (Triage(organ="prostate"), {}, "organ"),
        (Triage(scanner="SCAN-2"), {}, None),
        (Triage(scanner="SCAN-2"), {"stationName": "SCAN-1"}, "scanner"),
        (Triage(max_um_per_pixel=0.2), {}, "coarser"),
        (Triage(min_um_per_pixel=0.3), {}, "finer"),
        (Triage(max_um_per_pixel=0.3), {"micronsPerPixel": None}, "resolution"),
        (Triage(file_formats=("image/tiff",)), {}, "format"),
        (Triage(streamable=False), {}, "streamed"),
        (
            Triage(),
            {"qualityControl": {"status": "Rejected", "versionId": "1"}},
            "quality",
        ),
    ],
)
def test_each_rule_takes_what_it_says(
    rules: Triage | None, slide: dict[str, object], reason: str | None
) -> None:
    found = refusal(rules, _slide(**slide))
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert reason in found


def test_a_scanner_that_is_not_named_is_refused_once_all_is_known() -> None:
    rules = Triage(scanner="SCAN-2")
    assert refusal(rules, _slide()) is None
    assert refusal(rules, _slide(), complete=True) is not None


def test_an_own_node_is_an_app_by_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from typing import Annotated\n"
        "from theatrum.node import Image, Measure, Polygon, node\n"
        "@node(name='red', version='2.0', title='Redness')\n"
        "def red(image: Image, area: Polygon, *, limit: float = 0.5)"
        " -> Annotated[float, Measure(title='Red')]:\n"
        "    return 1.0\n"
    )
    table = {"shipped_apps": False, "apps": {"red": {"node": "mine.py:red"}}}
    app = registered(read(table), tmp_path)["red"]
    assert registration(app, "https://ia/apps/red", "Lab") == {
        "applicationId": "red",
        "displayName": "Redness",
        "manufacturer": "Lab",
        "url": "https://ia/apps/red",
        "inputTemplate": {"type": "taggedPolygon", "content": {"tags": []}},
        "context": {},
    }
    assert app.needs == "tiles"


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ({"wrokers": 2}, "wrokers"),
        ({"allow_callback": ["https://sps/path"]}, "origin"),
        ({"path_secret": "short"}, "path_secret"),
        ({"apps": {"a b": {"node": "x:y"}}}, "apps"),
        ({"apps": {"a": {"node": "x:y", "label": True}}}, "phi"),
        ({"apps": {"a": {"node": "x:y", "notifications": {"stain": "("}}}}, "regular"),
    ],
)
def test_a_wrong_setting_is_named(table: dict[str, object], word: str) -> None:
    with pytest.raises(BadSettings, match=word):
        read(table)


@pytest.mark.parametrize(
    ("app", "word"),
    [
        ({"node": "theatrum.nodes:nothing"}, "nothing"),
        ({"node": "missing.py:node"}, "missing.py"),
        ({"node": "theatrum.nodes:tissue_area", "parameters": {"x": 1}}, "x"),
        ({"node": "theatrum.nodes:tissue_area", "tags": ["T"]}, "tags"),
    ],
)
def test_an_app_that_cannot_be_is_named(
    app: dict[str, object], word: str, tmp_path: Path
) -> None:
    settings = read({"shipped_apps": False, "apps": {"mine": app}})
    with pytest.raises(BadSettings, match=f"mine.*{re.escape(word)}"):
        registered(settings, tmp_path)


@pytest.mark.parametrize("model", [ServiceSettings, AppSettings, Triage])
def test_every_setting_is_documented(model: type[ServiceSettings]) -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "ia_api.md"
    text = page.read_text()
    missing = [
        name
        for name in model.model_fields
        if f"`{name}`" not in text and f"{name} = " not in text
    ]
    assert missing == []
