"""The administrator's pages beside a real hub, asked by programs and by a browser.

The jobs are put in by the pathology server's double; a real worker does them.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, expect

from tests.browser import WAIT_MS, Traffic, browser, require_chromium
from tests.hub_process import RunningHub, running_hub
from tests.pathology_server import PathologyServer, Viewer, synthetic_slide

from .running_site import NODES, SETTINGS, wait

pytestmark = [pytest.mark.hub, pytest.mark.long]

# A loaded machine takes its time to begin a job.
expect.set_options(timeout=WAIT_MS)

HERE = "services/ia-api/"
SECRET = "SECRETSEGMENT0123456789"
PAGES = ("", "jobs", "throughput", "connection", "audit", "settings")

# Every text whose contrast with what is behind it is below 4.5 (WCAG 2.1, 1.4.3; large
# text needs less, and gets the same here), and every control without a name.
FAULTS = """() => {
  const found = [];
  const rgba = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((one) => {
      const part = one / 255;
      return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const colour = rgba(getComputedStyle(one).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255, 1];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !node.checkVisibility()) continue;
    if (node.closest("svg, option, .unseen")) continue;
    const text = texts.currentNode.data.trim();
    const one = light(rgba(getComputedStyle(node).color));
    const other = light(behind(node));
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)}: ${text}`);
  }
  const controls = document.querySelectorAll("input, select, button, summary, a");
  for (const control of controls) {
    if (control.type === "hidden") continue;
    const named = control.labels?.length || control.textContent.trim()
      || control.getAttribute("aria-label");
    if (!named) found.push(`no name: ${control.outerHTML}`);
  }
  return found;
}"""


@dataclass(frozen=True)
class Desk:
    """A hub with the service and a worker, and a pathology server that asks it."""

    hub: RunningHub
    server: PathologyServer
    viewer: Viewer
    notes: Path
    _sizes: Iterator[int]

    def job(self, note: str = "") -> tuple[str, str]:
        """A user asks for an analysis that does what the note says: (job, slide)."""
        width = next(self._sizes)
        slide = synthetic_slide(f"PRIVATE-{width}", width=width, height=200)
        self.server.add(slide)
        self.note(slide.slide_id, note)
        stored = self.viewer.create(slide.slide_id).body
        return stored["data"]["context"]["jobId"], slide.slide_id

    def note(self, slide_id: str, text: str) -> None:
        (self.notes / f"do-{slide_id.rpartition('-')[2]}").write_text(text)

    def shown(self, slide_id: str) -> str:
        """What the newest result on the slide shows in the pathology viewer."""
        held = self.server.results.of_slide("probe", slide_id)
        return str(held[-1]["displayResult"])


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    home, notes = folder / "home", folder / "notes"
    home.mkdir()
    notes.mkdir()
    (home / NODES.name).write_text(NODES.read_text())
    app = {
        "node": f"{NODES.name}:probe",
        "needs": "tiles",
        "parameters": {"notes": str(notes)},
    }
    with PathologyServer() as server:
        table = {
            **SETTINGS,
            "enabled": True,
            "path_secret": SECRET,
            "allow_callback": [server.origin],
            "apps": {"probe": app},
        }
        variables = {"THEATRUM_IA_API": json.dumps(table)}
        with running_hub(home, **variables) as hub:
            url = f"{hub.url}{HERE}{SECRET}/apps/probe"
            with Viewer(server, url) as viewer:
                viewer.register()
                yield Desk(hub, server, viewer, notes, count(300))


def _xsrf(page: str) -> str:
    found = re.search(r'"X-XSRF-Token": "([0-9a-f]{64})"', page)
    assert found, page
    return found[1]


# Rights


def test_a_student_is_told_the_same_of_a_job_and_of_none(desk: Desk) -> None:
    job_id, _ = desk.job()
    with desk.hub.sign_in("student1") as student:
        there, absent, missing = (
            student.get(f"{HERE}{path}") for path in (f"jobs/{job_id}", "jobs/x", "")
        )
    assert there.status_code == absent.status_code == missing.status_code == 403
    assert there.text.replace(job_id, "x") == absent.text
    assert job_id not in there.text.replace(str(there.url), "")


def test_nobody_sees_a_page_without_the_sign_in(desk: Desk) -> None:
    with httpx.Client(
        base_url=desk.hub.url, follow_redirects=True, trust_env=False
    ) as who:
        for page in (*PAGES, "jobs/x", "audit.csv"):
            assert who.get(f"{HERE}{page}").url.path == "/hub/login"


def test_a_viewer_looks_and_cannot_act(desk: Desk) -> None:
    job_id, slide_id = desk.job("hold")
    with desk.hub.sign_in("researcher") as viewer:
        page = viewer.get(f"{HERE}jobs/{job_id}")
        assert page.status_code == 200
        assert "<form" not in page.text
        form = {"_xsrf": _xsrf(page.text)}
        there, absent = (
            viewer.post(f"{HERE}jobs/{one}/cancel", data=form) for one in (job_id, "x")
        )
        assert there.status_code == absent.status_code == 404
        assert there.content == absent.content
        assert viewer.get(f"{HERE}connection").content == there.content
        # The secret segment of the addresses is for those who register apps.
        assert SECRET not in viewer.get(HERE).text
    desk.note(slide_id, "")
    wait(lambda: desk.shown(slide_id).startswith("Width"), "the job went on")


def test_an_absent_job_is_a_page_that_says_so(desk: Desk) -> None:
    with desk.hub.sign_in("teacher") as teacher:
        answer = teacher.get(f"{HERE}jobs/nosuchjob")
    assert answer.status_code == 404
    assert "nothing here, or you may not see it" in answer.text


def test_a_form_of_another_page_does_nothing(desk: Desk) -> None:
    job_id, slide_id = desk.job("hold")
    with desk.hub.sign_in("teacher") as teacher:
        page = teacher.get(f"{HERE}jobs/{job_id}").text
        for form in ({}, {"_xsrf": ""}, {"_xsrf": "0" * 64}):
            answer = teacher.post(f"{HERE}jobs/{job_id}/cancel", data=form)
            assert answer.status_code == 403
            answer = teacher.post(f"{HERE}connection", data=form)
            assert answer.status_code == 403
        with desk.hub.sign_in("teacher") as other:
            # Another session of the same person has another token.
            other.get(f"{HERE}jobs")
            form = {"_xsrf": _xsrf(page)}
            assert (
                other.post(f"{HERE}jobs/{job_id}/cancel", data=form).status_code == 403
            )
    with httpx.Client(base_url=desk.hub.url, trust_env=False) as nobody:
        form = {"_xsrf": _xsrf(page)}
        answer = nobody.post(f"{HERE}jobs/{job_id}/cancel", data=form)
        assert answer.status_code == 403
    desk.note(slide_id, "")
    wait(lambda: desk.shown(slide_id).startswith("Width"), "the job went on")


def test_a_script_of_another_page_reads_no_page(desk: Desk) -> None:
    with desk.hub.sign_in("teacher") as teacher:
        token = _xsrf(teacher.get(f"{HERE}jobs").text)
        script = {"Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin"}
        assert teacher.get(f"{HERE}jobs", headers=script).status_code == 403
        frame = {"Sec-Fetch-Dest": "iframe"}
        assert teacher.get(f"{HERE}jobs", headers=frame).status_code == 403
        own = {**script, "X-XSRF-Token": token, "HX-Request": "true"}
        assert teacher.get(f"{HERE}jobs", headers=own).status_code == 200


def test_slide_ids_are_shown_to_nobody_outside_their_group(desk: Desk) -> None:
    job_id, slide_id = desk.job()
    with desk.hub.sign_in("teacher") as teacher:
        for page in (*PAGES, f"jobs/{job_id}", "audit.csv"):
            answer = teacher.get(f"{HERE}{page}")
            assert answer.status_code == 200
            assert slide_id not in answer.text


def test_every_page_is_strict_about_where_things_come_from(desk: Desk) -> None:
    with desk.hub.sign_in("teacher") as teacher:
        for page in PAGES:
            headers = teacher.get(f"{HERE}{page}").headers
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert headers["Cache-Control"] == "no-store"
            assert headers["Referrer-Policy"] == "no-referrer"


def test_the_way_to_the_pages_is_shown_to_those_who_may_enter(desk: Desk) -> None:
    link = f'href="/{HERE}"'
    for name, shown in (("teacher", True), ("researcher", True), ("student1", False)):
        with desk.hub.sign_in(name) as person:
            assert (link in person.get("hub/home").text) is shown, name


# Content


def test_what_did_not_change_is_not_sent_again(desk: Desk) -> None:
    with desk.hub.sign_in("teacher") as teacher:
        page = teacher.get(f"{HERE}jobs?state=cancelled&app=nosuchapp").text
        digest = re.search(r'data-digest="(\w+)"', page)
        assert digest
        headers = {"HX-Request": "true", "X-XSRF-Token": _xsrf(page)}
        same = {"state": "cancelled", "app": "nosuchapp", "seen": digest[1]}
        assert (
            teacher.get(f"{HERE}jobs", params=same, headers=headers).status_code == 204
        )
        old = {**same, "seen": "other"}
        part = teacher.get(f"{HERE}jobs", params=old, headers=headers)
        assert part.text.startswith('<div id="live"')


def test_a_page_whose_session_is_over_loads_itself_anew(desk: Desk) -> None:
    with httpx.Client(base_url=desk.hub.url, trust_env=False) as nobody:
        answer = nobody.get(f"{HERE}jobs", headers={"HX-Request": "true"})
    assert answer.status_code == 401
    assert answer.headers["HX-Refresh"] == "true"


def test_secrets_are_on_no_settings_page(desk: Desk) -> None:
    with desk.hub.sign_in("teacher") as teacher:
        page = teacher.get(f"{HERE}settings").text
    assert SECRET not in page
    assert "set (hidden)" in page


def test_what_was_done_is_in_the_audit_log_and_its_export(desk: Desk) -> None:
    job_id, slide_id = desk.job("hold")
    token = desk.server.callback_info("probe")["token"]
    with desk.hub.sign_in("teacher") as teacher:
        xsrf = _xsrf(teacher.get(f"{HERE}jobs/{job_id}").text)
        teacher.post(f"{HERE}jobs/{job_id}/cancel", data={"_xsrf": xsrf})
        form = {"_xsrf": xsrf, "url": desk.server.url, "token": token}
        tried = teacher.post(f"{HERE}connection", data=form).text
        assert "Connected" in tried
        assert token not in tried
        lines = teacher.get(f"{HERE}audit.csv", params={"caller": "teacher"}).text
        page = teacher.get(f"{HERE}audit", params={"job": job_id}).text
    rows = list(csv.DictReader(lines.splitlines()))
    done = {(row["action"], row["outcome"], row["job"]) for row in rows}
    assert ("cancel", "done", job_id) in done
    assert ("connection-test", "connected", "") in done
    assert {row["caller"] for row in rows} == {"teacher"}
    assert page.count(f"jobs/{job_id}") == 2  # asked for, and cancelled
    desk.note(slide_id, "")
    for file in (desk.hub.home / "ia_api").iterdir():
        assert token.encode() not in file.read_bytes(), file.name


@pytest.mark.parametrize(
    "path", ["jobs?before=x", "jobs?state=x", "throughput?hours=7", "audit?below=0"]
)
def test_a_wrong_address_is_a_page_that_says_so(desk: Desk, path: str) -> None:
    with desk.hub.sign_in("teacher") as teacher:
        answer = teacher.get(f"{HERE}{path}")
    assert answer.status_code == 400
    assert answer.headers["Content-Type"].startswith("text/html")


# In a browser


@pytest.fixture
def context(tmp_path: Path) -> Iterator[BrowserContext]:
    require_chromium()
    with browser(tmp_path / "profile") as opened:
        yield opened


@pytest.fixture
def page(desk: Desk, context: BrowserContext) -> Page:
    """The teacher, who administers the service, at the overview."""
    page = context.pages[0]
    address = f"{desk.hub.url}{HERE}"
    page.goto(address)
    page.fill("#username_input", "teacher")
    page.fill("#password_input", desk.hub.passwords["teacher"])
    page.click("#login_submit")
    page.wait_for_url(address)
    return page


@pytest.mark.browser
def test_an_administrator_follows_a_job_cancels_it_and_begins_it_anew(
    desk: Desk, context: BrowserContext, page: Page
) -> None:
    traffic = Traffic.of(context)
    said: list[ConsoleMessage] = []
    page.on("console", lambda message: said.append(message))
    # Its token is kept as long as a job of the app goes on: this one does.
    _, other_slide = desk.job("hold")
    job_id, slide_id = desk.job("hold")

    field = page.get_by_label("Address to paste")
    expect(field).to_have_value(f"{desk.hub.url}{HERE}{SECRET}/apps/probe")

    page.get_by_role("link", name="Jobs", exact=True).click()
    page.evaluate("() => { window.sameDocument = true; }")
    row = page.get_by_role("row").filter(has_text=job_id)
    expect(row).to_contain_text("Running")
    expect(row.get_by_role("progressbar")).to_have_attribute(
        "value", re.compile("[1-9]")
    )
    row.get_by_role("link").focus()
    third, _ = desk.job()
    # The list follows by itself, and the focus stays where it was.
    expect(page.get_by_role("row").filter(has_text=third)).to_be_visible()
    assert page.evaluate("() => window.sameDocument === true")
    expect(row.get_by_role("link")).to_be_focused()

    # From here on by the keyboard alone.
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text(job_id)
    page.get_by_text("Cancel…").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("The analysis stops")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("The analysis stops")).to_be_hidden()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Cancel this job")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Cancelled.")
    wait(lambda: desk.shown(slide_id) == "Cancelled", "the viewer shows it")

    # Undone: the same request becomes another job, and it succeeds.
    desk.note(slide_id, "")
    page.get_by_role("button", name="Undo: begin it anew").click()
    expect(page.get_by_text("Begun anew as this job.")).to_be_visible()
    expect(page.locator(".headline")).to_contain_text("Succeeded")
    expect(page.get_by_role("link", name=job_id).first).to_be_visible()
    wait(lambda: desk.shown(slide_id).startswith("Width"), "the result is there")
    desk.note(other_slide, "")
    wait(lambda: desk.shown(other_slide).startswith("Width"), "the other went on")

    assert traffic.outside(desk.hub.url) == []
    refused = [one.text for one in said if one.type in {"error", "warning"}]
    assert refused == []


@pytest.mark.browser
def test_a_job_that_failed_is_begun_anew_and_one_at_work_is_superseded(
    desk: Desk, page: Page
) -> None:
    _, held_slide = desk.job("hold")
    failed, slide_id = desk.job("raise")
    wait(lambda: desk.shown(slide_id).startswith("Analysis failed"), "it failed")
    page.goto(f"{desk.hub.url}{HERE}jobs?state=dead")
    page.get_by_role("link", name=failed).click()
    expect(page.locator(".headline")).to_contain_text("Failed")
    expect(page.locator(".headline")).to_contain_text(
        "The analysis failed on this slide"
    )
    desk.note(slide_id, "hold")
    page.get_by_text("Begin anew…").click()
    page.get_by_role("button", name="Begin anew this job").click()
    expect(page.locator(".headline")).to_contain_text("Running")
    page.get_by_text("Supersede…").click()
    page.get_by_role("button", name="Supersede this job").click()
    expect(page.get_by_text("The earlier job was superseded")).to_be_visible()
    desk.note(slide_id, "")
    expect(page.locator(".headline")).to_contain_text("Succeeded")
    desk.note(held_slide, "")
    wait(lambda: desk.shown(held_slide).startswith("Width"), "the other went on")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_readable_labelled_and_fits_a_telephone(
    desk: Desk, page: Page, scheme: str
) -> None:
    job_id, _ = desk.job()
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for path in (*PAGES, f"jobs/{job_id}", "jobs?app=nosuchapp"):
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 844})
            page.goto(f"{desk.hub.url}{HERE}{path}")
            assert page.evaluate(FAULTS) == [], f"{path} at {width} px"
            beyond = page.evaluate("() => document.documentElement.scrollWidth")
            assert beyond <= width, f"{path} is {beyond} px wide"


@pytest.mark.browser
def test_every_control_shows_that_it_has_the_focus(desk: Desk, page: Page) -> None:
    for path in ("", "jobs", "connection", "audit"):
        page.goto(f"{desk.hub.url}{HERE}{path}")
        seen = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            where, outline = page.evaluate(
                "() => [document.activeElement.outerHTML,"
                " getComputedStyle(document.activeElement).outlineStyle]"
            )
            if where in seen or where.startswith("<body"):
                break
            seen.add(where)
            assert outline != "none", where
        assert len(seen) > 8


@pytest.mark.browser
def test_the_audit_log_is_exported_by_its_link(desk: Desk, page: Page) -> None:
    desk.job()
    page.goto(f"{desk.hub.url}{HERE}audit?action=create")
    with page.expect_download() as saved:
        page.get_by_role("link", name="Export as CSV").click()
    rows = list(csv.DictReader(saved.value.path().read_text().splitlines()))
    assert rows
    assert {row["action"] for row in rows} == {"create"}


@pytest.mark.browser
def test_a_page_says_when_it_can_no_longer_follow(
    desk: Desk, context: BrowserContext, page: Page
) -> None:
    warning = page.get_by_text("The service does not answer")
    expect(warning).to_be_hidden()
    context.set_offline(True)
    expect(warning).to_be_visible()
    context.set_offline(False)
    expect(warning).to_be_hidden()


@pytest.mark.browser
def test_throughput_is_drawn_and_stands_in_a_table(desk: Desk, page: Page) -> None:
    _, slide_id = desk.job()
    wait(lambda: desk.shown(slide_id).startswith("Width"), "a job succeeded")
    page.goto(f"{desk.hub.url}{HERE}throughput?hours=168")
    drawn = page.locator("figure svg.chart rect.succeeded title")
    expect(drawn.first).to_contain_text("succeeded")
    told = page.locator("table tbody tr td:nth-child(2)").all_inner_texts()
    bars = [text.split()[1] for text in drawn.all_text_contents()]
    assert sorted(one for one in told if one != "0") == sorted(bars)
    assert len(told) == 168
