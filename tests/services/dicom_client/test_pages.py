"""The pages of the client: over HTTP against a running site, and in a browser."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from playwright.sync_api import expect

from hub.signin import Person
from services.dicom_client.app import make_app
from services.dicom_client.opening import open_service
from services.dicom_client.settings import read
from tests.browser import Traffic, browser
from tests.dcmtk import storescp

from .client_site import (
    CANARIES,
    Site,
    free_port,
    patient_series,
    running_site,
    template,
    wait,
    write,
)

ECLIPSE = """<StructureTemplate><Preview ID="Pelvis from Eclipse"/><Structures>
<Structure ID="Urinary Bladder"><Identification><VolumeType>Organ</VolumeType>
</Identification><ColorAndStyle>Segment - 255 128 0</ColorAndStyle></Structure>
<Structure ID="Bladder"/><Structure ID="PTV_60"><Identification>
<VolumeType>PTV</VolumeType></Identification></Structure></Structures>
</StructureTemplate>"""


class Visitor:
    """Somebody at a browser: a session, and forms of the pages that were opened."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def get(self, path: str, status: int = 200) -> str:
        answer = self._http.get(path)
        assert answer.status_code == status, (path, answer.status_code, answer.text)
        return answer.text

    def picture(self, address: str) -> bytes:
        answer = self._http.get(address)
        assert answer.headers["Content-Type"] == "image/png", answer.text
        return answer.content

    def send(
        self,
        path: str,
        fields: dict[str, Any] | None = None,
        *,
        files: dict[str, bytes] | None = None,
        status: int = 200,
        page: str = "/templates",
    ) -> str:
        """Send a form with the token of a page, and follow to where it leads."""
        token = re.search(r'X-XSRF-Token": "([0-9a-f]{64})"', self.get(page))
        assert token is not None
        answer = self._http.post(
            path,
            data={"_xsrf": token[1], **(fields or {})},
            files={name: (f"{name}.bin", one) for name, one in (files or {}).items()},
        )
        assert answer.status_code == status, (path, answer.status_code, answer.text)
        return answer.text

    def raw(self, path: str, **arguments: Any) -> httpx.Response:
        return self._http.post(path, **arguments)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture(scope="module")
def done(site: Site) -> str:
    """A series that was segmented."""
    site.drop(patient_series(), "done")
    return str(site.wait_state("done")["id"])


@pytest.fixture(scope="module")
def visitor(site: Site) -> Iterator[Visitor]:
    token = (site.home / "dicom_client" / "access-token").read_text()
    with httpx.Client(base_url=site.url, follow_redirects=True, timeout=60) as http:
        http.post("/login", data={"token": token})
        yield Visitor(http)


def test_the_list_tells_state_reason_and_patient(
    site: Site, visitor: Visitor, done: str
) -> None:
    site.drop(patient_series(slices=4, SeriesDescription="Few"), "few")
    held = site.wait_state("held")["id"]
    page = visitor.get("/")
    assert "Zwetschgenroester, Resi" in page
    assert "fewer than 10" in page
    assert "Held" in page
    only = visitor.get("/?state=attention")
    assert held in only
    assert done not in only


def test_a_patient_is_found_by_a_search_that_no_address_holds(
    visitor: Visitor, done: str
) -> None:
    assert done in visitor.send("/search", {"text": "zwetschgen"})
    assert "No series fits" in visitor.send("/search", {"text": "somebody else"})


@pytest.mark.parametrize("path", ["/", "/series/{}", "/series/{}/review"])
def test_no_address_on_a_page_tells_a_name(
    visitor: Visitor, done: str, path: str
) -> None:
    addresses = re.findall(
        r'(?:href|src|action|hx-get)="([^"]*)"', visitor.get(path.format(done))
    )
    assert addresses
    for address in addresses:
        assert not any(canary in address for canary in CANARIES)


def test_a_series_shows_time_line_three_planes_and_findings(
    visitor: Visitor, done: str
) -> None:
    page = visitor.get(f"/series/{done}")
    for word in ("De-identified", "Uploading", "Confirmed", "Timeline", "Deliveries"):
        assert word in page
    pictures = re.findall(r'<img src="([^"]+)"', page)
    assert len(pictures) == 3
    for address in pictures:
        assert visitor.picture(address.replace("&amp;", "&")).startswith(b"\x89PNG")
    bare = pictures[0].partition("?")[0]
    visitor.get(bare, status=403)


def test_a_held_series_is_let_through_and_started_by_hand(
    site: Site, visitor: Visitor
) -> None:
    site.drop(patient_series(slices=5, SeriesDescription="Five"), "five")
    wait(lambda: any(one["instances"] == 5 for one in site.series()), "it arrives")
    wait(
        lambda: any(
            one["instances"] == 5 and one["state"] == "held" for one in site.series()
        ),
        "it is held",
    )
    held = next(one["id"] for one in site.series() if one["instances"] == 5)
    assert "Let through" in visitor.send(f"/series/{held}/override")
    wait(lambda: site.detail(held)["state"] == "done", "it is done")
    again = visitor.send(f"/series/{held}/cancel", status=409)
    assert "Not done" in again


def test_of_several_series_each_is_started_or_told_why_not(
    site: Site, visitor: Visitor, done: str
) -> None:
    site.ask("PUT", "templates", json=template("Pelvis, less", 1))
    fields = {"template": "Pelvis, less", "series": [done]}
    assert "Started 1 series." in visitor.send("/start", fields)
    assert "has been segmented with this template" in visitor.send("/start", fields)
    assert "Tick the series" in visitor.send("/start", {"template": "Pelvis, less"})


def test_a_form_without_the_pages_token_changes_nothing(
    site: Site, visitor: Visitor, done: str
) -> None:
    before = site.detail(done)
    answer = visitor.raw(f"/series/{done}/template", data={"template": "Pelvis"})
    assert answer.status_code == 403
    assert site.detail(done) == before


def test_a_template_is_picked_from_the_catalogue_named_and_exported(
    visitor: Visitor,
) -> None:
    page = visitor.get("/templates/new")
    assert "Femur_Head_L" in page
    edit = visitor.send(
        "/templates/new", {"name": "Hips", "structure": ["720:3", "720:4"]}
    )
    digest = re.search(r'action="/templates/([0-9a-f]{64})/edit"', edit)
    assert digest is not None
    steps = '[{"type": "expand", "structures": ["Femur_Head_L"], "parameters": {}}]'
    one = visitor.send(
        f"/templates/{digest[1]}/edit",
        {
            "label-720-0": "Hip_L",
            "type-720-0": "ORGAN",
            "colour-720-0": "#ff8800",
            "made": "new",
            "label-new": "Hip_L+5",
            "operations-new": steps,
        },
    )
    assert "#ff8800" in one
    assert "Version 2" in one
    assert "trainer_name: nnUNetTrainerNoMirroring" in one
    exported = re.search(r'href="(/templates/[0-9a-f]{64}\.json)"', one)
    assert exported is not None
    text = visitor.get(exported[1])
    back = visitor.send("/templates/import", files={"file": text.encode()})
    assert "Hip_L+5" in back
    wrong = {"made": "new", "label-new": "X", "operations-new": '[{"type": "melt"}]'}
    told = visitor.send(f"/templates/{digest[1]}/edit", wrong, status=422)
    assert "there is no operation" in told


def test_an_eclipse_template_is_reviewed_and_made(visitor: Visitor) -> None:
    page = visitor.send("/templates/eclipse", files={"file": ECLIPSE.encode()})
    assert "Urinary Bladder" in page
    assert "#ff8000" in page
    made = visitor.send(
        "/templates/eclipse/make",
        {
            "name": "From Eclipse",
            "row": ["0", "1"],
            "name-0": "Bladder",
            "label-0": "Bladder",
            "source-0": "720:1",
            "name-1": "PTV_60",
            "label-1": "PTV_60",
            "type-1": "PTV",
            "source-1": "empty",
        },
    )
    assert "empty, to be drawn by hand" in made


def test_a_dry_run_shows_the_value_and_result_of_every_rule(
    visitor: Visitor, done: str
) -> None:
    rules = """{"rules": [
      {"name": "Thick", "template": "Pelvis", "all_of": [
        {"tag": "SliceThickness", "op": "gt", "value": 99}]},
      {"name": "Pelves", "template": "Pelvis", "any_of": [
        {"tag": "SeriesDescription", "op": "icontains", "value": "PELVIS"}]}]}"""
    fields = {"rules": rules, "series": done, "act": "try"}
    page = visitor.send("/rules", fields)
    trial = page.partition('id="dry-run"')[2].partition("</section>")[0]
    assert "Pelvis native" in trial
    assert "does not hold" in trial
    assert "2.5" in trial
    before = visitor.get("/rules.json")
    assert "Pelves" not in before
    wrong = visitor.send("/rules", {**fields, "rules": '{"rules": [{}]}'}, status=422)
    assert "rules[0]" in wrong
    absent = rules.replace('"Pelvis"', '"Nowhere"')
    told = visitor.send("/rules", {"rules": absent, "act": "save"}, status=422)
    assert "there is no template" in told


def test_rules_of_the_second_client_are_read_into_the_editor(visitor: Visitor) -> None:
    page = visitor.send(
        "/rules/import", {"kind": "json"}, files={"file": b'{"rules": []}'}
    )
    assert "0 rules were read" in page
    visitor.send("/rules/import", {"kind": "v2"}, files={"file": b"no"}, status=422)


def test_the_dictionary_tells_what_may_be_compared(visitor: Visitor) -> None:
    found = visitor.get("/rules/tags?q=slice+thick")
    assert "SliceThickness" in found
    assert "between" in found


def test_a_node_is_kept_and_echoed(visitor: Visitor) -> None:
    node = {"name": "tps", "host": "127.0.0.1", "port": free_port(), "ae_title": "TPS"}
    try:
        assert "tps" in visitor.send("/nodes", node)
        assert "cannot be reached" in visitor.send("/nodes/0/echo")
        with storescp(title="TPS") as peer:
            there = {**node, "was": "tps", "port": peer.port, "timeout_s": "5"}
            visitor.send("/nodes", there)
            assert "The node answered" in visitor.send("/nodes/0/echo")
        told = visitor.send("/nodes", {**node, "name": "b", "port": "x"}, status=422)
        assert "whole number" in told
    finally:
        assert "There is no node yet" in visitor.send("/nodes/0/delete", node)


def test_settings_are_changed_and_secrets_are_never_shown(
    site: Site, visitor: Visitor
) -> None:
    page = visitor.get("/settings")
    assert "A token is set" in page
    assert site.server.access_token not in page
    fields = dict(re.findall(r'<input id="f-\d+" name="([^"]+)" value="([^"]*)"', page))
    fields = {name: value.replace("&#34;", '"') for name, value in fields.items()}
    fields |= {"on_unknown_upload": "ask", "server.refresh": "auto"}
    fields |= {"on_unknown_delivery": "ask"}
    fields |= {"beside_images": "yes", "warn_faces": "no"}
    kept = visitor.send("/settings", {**fields, "min_instances": "9"})
    assert "The settings are kept." in kept
    told = site.ask("GET", "settings")["settings"]
    assert told["server"]["base_url"] == site.server.url
    bad = visitor.send("/settings", {**fields, "min_instances": "none"}, status=422)
    assert "min_instances" in bad
    visitor.send("/settings", fields)


def test_a_secret_of_a_dicomweb_server_is_written_forgotten_and_never_shown(
    site: Site, visitor: Visitor
) -> None:
    secret = "s3cret-of-the-archive"
    sent = {"name": "stow-token", "secret": secret}
    page = visitor.send("/settings/secrets", sent)
    assert "The secret is kept." in page
    assert "forget-stow-token" in page
    assert secret not in page + visitor.get("/settings") + visitor.get("/audit")
    assert secret not in site.call("GET", "settings").text
    assert site.call("DELETE", "secrets/dicomweb-token").status_code == 404
    gone = visitor.send("/settings/secrets", {"name": "stow-token", "forget": "yes"})
    assert "The secret is forgotten." in gone
    assert "forget-stow-token" not in gone
    visitor.send("/settings/secrets", {"name": "draw-tokens"}, status=404)


def test_contours_are_rated_and_compared(
    site: Site, visitor: Visitor, done: str
) -> None:
    review = visitor.get(f"/series/{done}/review")
    assert "Minutes to correct" in review
    rating = {"score-set": "8", "minutes-set": "2.5", "modification-0": "minor"}
    visitor.send(f"/series/{done}/rate", rating)
    visitor.send(f"/series/{done}/rate", {"score-set": "11"}, status=400)
    assert ",minor," in visitor.get("/ratings.csv")
    manual = next((site.home / "phi").rglob(f"{done}/finished/*.dcm"))
    visitor.send(f"/series/{done}/compare", files={"reference": manual.read_bytes()})
    wait(lambda: "1.000" in visitor.get(f"/series/{done}/review"), "it is measured")
    assert "Bladder" in visitor.get("/overlaps.csv")
    token = re.search(r'X-XSRF-Token": "([0-9a-f]{64})"', visitor.get("/templates"))
    assert token is not None
    visitor.raw(
        f"/series/{done}/compare",
        data={"_xsrf": token[1]},
        files={"reference": ("no.dcm", b"no")},
    )
    wait(
        lambda: "no RT Structure Set" in visitor.get(f"/series/{done}/review"),
        "what is wrong is told",
    )
    assert not list((site.home / "phi").rglob("*.tmp"))


def test_statistics_are_drawn_and_told(visitor: Visitor, done: str) -> None:
    page = visitor.get("/statistics?days=7")
    assert '<rect class="bar done"' in page
    assert "Segmented by template" in page


def test_the_audit_log_is_filtered_and_exported(visitor: Visitor, done: str) -> None:
    assert "Every line follows" in visitor.get("/audit?check=true")
    lines = visitor.get("/audit.csv?action=template").splitlines()
    assert lines[0].startswith("id,at,who")
    assert all(",template," in line for line in lines[1:])
    assert '"action": "template"' in visitor.get("/audit.json?action=template")


def test_the_open_list_follows_a_series_without_a_reload(
    site: Site, tmp_path: Path
) -> None:
    token = (site.home / "dicom_client" / "access-token").read_text()
    with browser(tmp_path / "profile") as context:
        traffic = Traffic.of(context)
        page = context.new_page()
        page.goto(f"{site.url}/login")
        page.get_by_label("Access token").fill(token)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Series")).to_be_visible()
        page.evaluate("window.untouched = true")
        site.drop(
            patient_series(PatientName="Neuner^Nora", SeriesDescription="Ninth"), "live"
        )
        row = page.get_by_role("row").filter(has_text="Neuner, Nora")
        expect(row.get_by_text("Done")).to_be_visible(timeout=60_000)
        assert page.evaluate("window.untouched")
        assert traffic.outside(site.url) == []


def test_a_zip_file_is_uploaded_in_a_browser_and_followed_to_its_series(
    site: Site, tmp_path: Path
) -> None:
    token = (site.home / "dicom_client" / "access-token").read_text()
    archive, rubbish = tmp_path / "scan.zip", tmp_path / "rubbish.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for at, path in enumerate(write(patient_series(), tmp_path / "scan")):
            packed.write(path, f"{at}.dcm")
    rubbish.write_bytes(b"no archive")
    with browser(tmp_path / "profile") as context:
        traffic = Traffic.of(context)
        page = context.new_page()
        page.goto(f"{site.url}/login")
        page.get_by_label("Access token").fill(token)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("link", name="Upload").click()
        page.evaluate("window.untouched = true")
        page.get_by_label("Zip file").set_input_files(archive)
        page.get_by_role("button", name="Upload", exact=True).click()
        row = page.get_by_role("row").filter(has_text="Taken")
        expect(row).to_contain_text("12")
        page.get_by_label("Zip file").set_input_files(rubbish)
        page.get_by_role("button", name="Upload", exact=True).click()
        bad = page.get_by_role("row").filter(has_text="Refused")
        expect(bad).to_contain_text("no whole zip file")
        assert page.evaluate("window.untouched")
        row.get_by_role("link").click()
        expect(page.get_by_role("heading", name="Timeline")).to_be_visible()
        assert traffic.outside(site.url) == []


class Groups:
    """A sign-in that takes people's groups from a header, for the tests of roles."""

    prefix = "/"

    async def page(self, request: Request) -> Person:
        groups = request.headers.get("X-Groups", "").split()
        return Person("somebody", "user", frozenset(groups))

    api = page


@pytest.fixture
def roles(tmp_path: Path) -> Iterator[TestClient]:
    service = open_service(tmp_path, read({}))
    app = make_app(service, "/")
    app.state.sign_in = Groups()
    with TestClient(app, follow_redirects=False) as client:
        yield client
    service.close()


@pytest.mark.parametrize(
    ("group", "path", "status"),
    [
        ("dicom-viewers", "/", 200),
        ("dicom-viewers", "/statistics", 200),
        ("dicom-viewers", "/rules", 403),
        ("dicom-viewers", "/settings", 403),
        ("dicom-viewers", "/audit", 403),
        ("dicom-planners", "/nodes", 200),
        ("dicom-planners", "/settings", 403),
        ("dicom-template-editors", "/", 302),
        ("dicom-template-editors", "/templates", 200),
        ("dicom-template-editors", "/series/0123456789abcdef", 403),
        ("dicom-template-editors", "/statistics", 403),
        ("dicom-template-editors", "/audit.csv", 403),
        ("dicom-administrators", "/audit", 200),
        ("dicom-administrators", "/series/0123456789abcdef", 404),
        ("strangers", "/", 403),
    ],
)
def test_a_role_opens_its_pages_and_no_others(
    roles: TestClient, group: str, path: str, status: int
) -> None:
    assert roles.get(path, headers={"X-Groups": group}).status_code == status


def test_a_viewer_cannot_start_and_is_offered_nothing(roles: TestClient) -> None:
    headers = {"X-Groups": "dicom-viewers"}
    page = roles.get("/", headers=headers).text
    token = re.search(r'name="_xsrf" value="([0-9a-f]+)"', page)
    assert token is not None
    assert 'action="/start"' not in page or "Start</button>" not in page
    for path in ("/start", "/series/0123456789abcdef/retry", "/rules", "/nodes"):
        answer = roles.post(path, data={"_xsrf": token[1]}, headers=headers)
        assert answer.status_code == 403, path
        assert "ask an administrator" in answer.text.lower()


def test_another_page_of_the_origin_cannot_read_a_page(roles: TestClient) -> None:
    headers = {"X-Groups": "dicom-viewers", "Sec-Fetch-Dest": "empty"}
    assert roles.get("/", headers=headers).status_code == 403


@pytest.mark.parametrize("prefix", ["/", "/services/dicom-client/", "/hub-at/s/x/"])
def test_every_address_of_a_page_lies_below_its_prefix(
    tmp_path: Path, prefix: str
) -> None:
    service = open_service(tmp_path, read({}))
    app = make_app(service, prefix)
    app.state.sign_in = Groups()
    with TestClient(app) as client:
        for path in ("", "templates", "rules", "nodes", "statistics", "settings"):
            answer = client.get(
                f"{prefix}{path}", headers={"X-Groups": "dicom-administrators"}
            )
            assert answer.status_code == 200, path
            addresses = re.findall(
                r'(?:href|src|action|hx-get|data-feed)="([^"#]+)"', answer.text
            )
            assert all(one.startswith(prefix) for one in addresses), addresses
            assert all(
                client.get(one.replace("&amp;", "&")).status_code == 200
                for one in addresses
                if "/static/" in one
            )
    service.close()
