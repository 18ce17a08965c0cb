"""The catalogue's pages in a browser, as a person uses them."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import nibabel
import numpy as np
import pytest
from playwright.sync_api import BrowserContext, Page, expect
from sqlalchemy import update
from theatrum.catalog.ingest import Wishes, ingest
from theatrum.catalog.ingest.inbox import collect
from theatrum.catalog.record import recording
from theatrum.catalog.tables import Batch, FileRule, ProjectGroup

from hub.settings import load
from services.catalog import intake, worker
from tests.browser import WAIT_MS, Traffic, browser
from tests.services.catalog.running import Site, catalogue

PEOPLE = {"ria": ["lab"], "leo": ["readers"]}
SHOTS = os.environ.get("THEATRUM_SHOTS", "")
expect.set_options(timeout=WAIT_MS)  # a loaded machine draws a page in many seconds


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """`brain`, the lab's: three scans, one of them damaged since, and two that wait."""
    folder = tmp_path_factory.mktemp("pages")
    with catalogue(folder / "home", PEOPLE) as running:
        database = running.app.state.service.database
        with recording(database, "ria") as book:
            project = book.project("brain", title="Brains")
            for group, role in {"lab": "maintainer", "readers": "viewer"}.items():
                project.groups.append(ProjectGroup(group=group, role=role))
            book.session.flush()
            rule = FileRule(project_id=project.id, name="animals")
            rule.pattern = r"(?P<animal>m\d+)_(?P<stain>[a-z]+)"
            rule.fields = {"animal": "subject__label", "stain": "sample__stain"}
            book.add(rule)
        scans = [
            _scan(folder / f"sub-0{number}_T1w.nii", number) for number in (1, 2, 3)
        ]
        wishes = Wishes("brain", "ria")
        ingest(database, running.home, [str(one) for one in scans], wishes)
        scans[2].write_bytes(b"damaged")
        waits = [_scan(folder / f"m0{number}_he.nii", number) for number in (5, 6)]
        collect(database, running.home, [str(one) for one in waits], wishes)
        yield running


def _scan(path: Path, seed: int) -> Path:
    z, y, x = np.mgrid[:16, :24, :20]
    ball = ((z - 8) / 7) ** 2 + ((y - 12) / 10) ** 2 + ((x - 10) / 8) ** 2 < 1
    noise = np.random.default_rng(seed).integers(0, 40, ball.shape)
    values = (ball * 400 + noise).astype(np.int16).T
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 1.5, 1])), path)
    return path


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    with browser(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture
def page(context: BrowserContext, site: Site) -> Iterator[Page]:
    """A page of ria's; nothing leaves the origin, and no script complains."""
    context.clear_cookies()
    context.add_cookies([site.cookie("ria")])
    traffic = Traffic.of(context)
    made = context.new_page()
    made.set_default_timeout(WAIT_MS)
    complaints: list[str] = []
    made.on("pageerror", lambda error: complaints.append(str(error)))
    made.on(
        "console",
        lambda line: complaints.append(line.text) if line.type == "error" else None,
    )
    yield made
    made.close()
    assert traffic.outside(site.url) == []
    # The icon is the hub's, which is not here; a form that is refused answers 409 or
    # 422; the picture of the scan that is damaged answers 410, however late.
    meant = re.compile(r"status of (404|409|410|422)")
    assert [one for one in complaints if not meant.search(one)] == []


@pytest.fixture
def working(site: Site) -> Iterator[None]:
    """The catalogue's worker, in threads of the tests."""
    settings = load(
        {"THEATRUM_HOME": str(site.home.root), "THEATRUM_CATALOG_ENGINE": "threads"}
    )
    stop = threading.Event()
    threads = [
        threading.Thread(target=work, args=(settings, stop))
        for work in (worker.work, intake.take_in_orders)
    ]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join(60)


def _look(page: Page, name: str) -> None:
    """No text is cut at 390 pixels; pictures, also dark ones, where asked for."""
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{name} is {wide} wide at {width}"
        for scheme in ("light", "dark") if SHOTS else ():
            page.emulate_media(color_scheme=scheme)
            # To hide the caret would be an inline style, which no page takes.
            file = f"{SHOTS}/{name}-{width}-{scheme}.png"
            page.screenshot(path=file, full_page=True, caret="initial")
    page.set_viewport_size({"width": 1280, "height": 900})


def test_a_person_finds_an_image_and_looks_at_it(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/")
    expect(page.get_by_role("heading", name="3 images")).to_be_visible()
    drawn = "image => image.decode().then(() => image.naturalWidth)"
    for name in ("sub-01", "sub-02"):
        card = page.locator(".grid li").filter(has_text=name)
        assert card.locator("img").evaluate(drawn) > 10
    torn = page.locator(".grid li").filter(has_text="sub-03")
    expect(torn.get_by_text("the file cannot be read")).to_be_visible()
    _look(page, "front")
    page.get_by_label("Words in names").fill("sub-02")
    page.get_by_role("button", name="Find").press("Enter")
    expect(page.get_by_role("heading", name="1 image", exact=True)).to_be_visible()
    page.locator("a.open").focus()
    page.keyboard.press("Enter")
    slider = page.get_by_label("Number")
    slider.focus()
    picture = page.locator("#plane")
    assert picture.evaluate(drawn) > 10
    first = picture.get_attribute("src")
    before = slider.input_value()
    page.keyboard.press("ArrowRight")
    assert int(slider.input_value()) == int(before) + 1
    expect(page).to_have_url(re.compile("index="))
    expect(picture).not_to_have_attribute("src", first or "")
    assert picture.evaluate(drawn) > 10
    _look(page, "image")


def test_a_download_begins_at_once_or_is_made_where_one_sees_how_far(
    page: Page, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.goto(f"{site.url}/?name__in=sub-01_t1w,sub-02_t1w")
    page.get_by_text("Download", exact=True).press("Enter")
    with page.expect_download() as begun:
        page.get_by_role("link", name="Original files").press("Enter")
    assert begun.value.suggested_filename == "images-originals.zip"
    monkeypatch.setattr("services.catalog.api.exports.STREAMED_BYTES", 0)
    page.get_by_role("link", name="Bundle").click()
    expect(page.get_by_text("This download is large")).to_be_visible()
    with page.expect_download() as fetched:
        page.get_by_role("link", name="Fetch").press("Enter")
    assert fetched.value.suggested_filename == "bundle.zip"
    _look(page, "downloads")
    page.get_by_role("button", name="Forget").press("Enter")
    expect(page.get_by_text("Small downloads begin at once")).to_be_visible()


def test_a_person_keeps_a_question_and_finds_it_in_the_menu(
    page: Page, site: Site
) -> None:
    page.goto(f"{site.url}/?name__in=sub-01_t1w,sub-02_t1w")
    page.get_by_role("link", name="Keep this question").press("Enter")
    page.get_by_label("Title").fill("First two")
    page.get_by_label("Its download is").select_option("bundle")
    page.get_by_role("button", name="Keep it").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("The question is kept")
    page.get_by_role("button", name="Take First two away").press("Enter")
    expect(page.get_by_role("button", name="Take First two away")).to_be_hidden()
    page.get_by_role("button", name="Undo").press("Enter")
    _look(page, "questions")
    page.get_by_role("link", name="Images", exact=True).last.click()
    page.get_by_text("Saved queries").press("Enter")
    expect(page.get_by_role("link", name="Download First two")).to_contain_text(
        "2 images"
    )
    page.get_by_role("link", name="First two", exact=True).press("Enter")
    expect(page.get_by_role("heading", name="2 images")).to_be_visible()


def test_a_person_reviews_what_waits(page: Page, site: Site, working: None) -> None:
    page.goto(f"{site.url}/inbox")
    first = page.locator(".waiting > li").filter(has_text="m05_he.nii")
    expect(first.get_by_text("animals")).to_be_visible()
    expect(first.get_by_label("subject label")).to_have_value("m05")
    drawn = "image => image.decode().then(() => image.naturalWidth)"
    assert first.locator("img").evaluate(drawn) > 10
    _look(page, "inbox")
    # Kept out and brought back, by the keyboard alone.
    page.get_by_role("button", name="Keep out m05_he.nii").focus()
    page.keyboard.press("Enter")
    expect(
        page.get_by_role("status").filter(has_text="1 item kept out")
    ).to_be_visible()
    expect(page.locator(".waiting > li")).to_have_count(1)
    page.get_by_role("button", name="Undo", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.locator(".waiting > li")).to_have_count(2)
    # Tried, a rule changes nothing; kept, it comes after what was there.
    page.get_by_role("link", name="Change them, or try others").click()
    page.get_by_label("Names like").fill(r"m(?P<animal>\d+)")
    page.get_by_label("What field 1 is").fill("mouse {animal}")
    page.get_by_label("Field 2", exact=True).select_option("")
    page.get_by_role("button", name="Try it").last.click()
    expect(page.get_by_text("subject__label = mouse 05")).to_be_visible()
    expect(page.get_by_text("animals comes first")).to_have_count(2)
    page.get_by_role("button", name="Keep it").click()
    expect(page.get_by_role("alert")).to_contain_text("Give the rule a name")
    page.get_by_label("What it is called").fill("mice")
    page.get_by_role("button", name="Keep it").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("The rule is kept")
    _look(page, "rules")
    page.get_by_role("button", name="Ask mice earlier").press("Enter")
    expect(page.locator(".rules b").first).to_have_text("mice")
    page.get_by_role("button", name="Take mice away").press("Enter")
    expect(page.locator(".rules li")).to_have_count(1)
    page.get_by_role("button", name="Undo").press("Enter")
    expect(page.locator(".rules b").first).to_have_text("mice")
    page.get_by_role("link", name="Change mice").click()
    page.get_by_label("and say so of what waits").check()
    page.get_by_role("button", name="Keep it").click()
    expect(page.get_by_text("2 items that wait say so too")).to_be_visible()
    # Said anew and let in, both at once.
    page.goto(f"{site.url}/inbox")
    page.get_by_label("m05_he.nii", exact=True).focus()
    page.keyboard.press("Shift+ArrowDown")
    expect(page.get_by_text("2 chosen")).to_be_visible()
    page.get_by_text("Say of what is chosen").press("Enter")
    page.get_by_label("What", exact=True).select_option("experiment__name")
    page.get_by_label("is", exact=True).fill("Ageing")
    page.get_by_label("is", exact=True).press("Tab")
    page.keyboard.press("Enter")
    expect(
        page.get_by_role("status").filter(has_text="2 items changed")
    ).to_be_visible()
    expect(first.get_by_label("experiment name")).to_have_value("Ageing")
    first.get_by_label("subject label").fill("mouse-five")
    page.get_by_label("m05_he.nii", exact=True).focus()
    expect(page.get_by_text("2 chosen")).to_be_visible()
    page.keyboard.press("Control+A")
    expect(page.get_by_text("2 chosen")).to_be_hidden()
    page.keyboard.press("Control+A")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="2 items let in")).to_be_visible()
    with site.client("ria") as client:
        _until(
            lambda: client.get("images", params={"subject__label": "mouse-five"})
            .json()["items"]
        )  # fmt: skip


def _until(look) -> None:
    for _ in range(1200):
        if look():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it did not come")


def test_a_person_runs_a_node_and_follows_its_batch(
    page: Page, site: Site, working: None
) -> None:
    page.goto(f"{site.url}/run?name__startswith=sub")
    expect(page.get_by_role("heading", name="Run a flow on 3 images")).to_be_visible()
    page.get_by_label("What is to be done").select_option("node:project")
    page.get_by_role("button", name="Go on").click()
    page.get_by_label("How").select_option("mean")
    page.get_by_label("First").fill("1")
    page.get_by_label("What you call it").fill("Means")
    expect(
        page.get_by_text("Whole number from 0; 0 if nothing is said.")
    ).to_be_visible()
    expect(page.get_by_text("3 items.")).to_be_visible()
    _look(page, "run")
    page.get_by_role("button", name="Run on 3 images").click()
    expect(page).to_have_url(re.compile("/batches/"))
    # It follows by itself, without a reload.
    expect(page.locator(".matrix tbody tr")).to_have_count(3)
    expect(page.locator(".headline > .state").first).to_contain_text(
        "ended with failures"
    )
    signs = page.locator(".matrix td .state").all_inner_texts()
    assert sorted(one.strip()[0] for one in signs) == ["✓", "✓", "✗"]
    expect(page.locator(".matrix .why").filter(has_text=re.compile("."))).to_have_count(
        1
    )
    expect(page.get_by_role("link", name="2 images made")).to_be_visible()
    _look(page, "batch")
    page.get_by_role("link", name="Show only what failed").press("Enter")
    expect(page.locator(".matrix tbody tr")).to_have_count(1)
    page.get_by_label("choose sub-03_t1w").check()
    page.get_by_role("button", name="Do once more what is chosen").press("Enter")
    expect(page.get_by_text("What failed is done once more")).to_be_visible()
    retry = page.get_by_role("button", name="Do once more what failed")
    retry.press("Enter")
    expect(page.get_by_text("What failed is done once more")).to_be_visible()
    page.locator(".matrix a.state").first.click()
    expect(page.locator("#lineage").get_by_text("project(").first).to_be_visible()
    page.go_back()
    page.get_by_role("link", name="Batches").first.click()
    expect(page.get_by_role("link", name="Means")).to_be_visible()
    expect(page.get_by_role("cell", name="ria")).to_have_count(1)
    _look(page, "batches")


def test_a_person_is_told_how_many_items_there_will_be(page: Page, site: Site) -> None:
    asked = f"{site.url}/run?name__in=sub-01_t1w,sub-02_t1w,sub-03_t1w"
    page.goto(f"{asked}&_do=node:nyul_standard")
    expect(page.get_by_text("1 item of 3 images.")).to_be_visible()
    page.get_by_label("What is put together").select_option("subject_id")
    page.get_by_role("button", name="Change").click()
    expect(page.get_by_text("3 items.")).to_be_visible()
    page.goto(f"{asked}&_do=node:nyul_standard&_by=sample_id")
    said = "1 item of 3 images. 3 images have no sample: together they are one item."
    expect(page.get_by_text(said)).to_be_visible()
    page.goto(f"{asked}&_do=node:crop")
    page.get_by_label("X", exact=True).fill("1, two")
    page.get_by_role("button", name="Run on").click()
    expect(page.get_by_role("alert")).to_contain_text("X cannot be read: 1, two")
    expect(page.get_by_label("X", exact=True)).to_have_value("1, two")


def test_a_person_makes_a_flow_keeps_it_and_changes_it(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/flows")
    page.get_by_role("link", name="New flow").click()
    for node in ("Gauss", "Threshold"):
        page.get_by_label("Add a step").select_option(label=node)
        page.get_by_role("button", name="Add", exact=True).press("Enter")
    # What fits last is joined at once, and the new step has the focus.
    expect(page.locator("#s1-key")).to_be_focused()
    expect(page.get_by_label("image (array)").nth(1)).to_have_value("gauss.result")
    expect(page.locator(".flow .step")).to_have_count(3)
    page.locator("#s0-p-sigma").fill("2.5")
    page.locator("#s0-ask-sigma").check()
    page.get_by_label("image (array)").nth(1).select_option("")
    page.get_by_role("button", name="Draw it anew").click()
    wrong = "The input 'image' of 'threshold' is fed by nothing."
    expect(page.get_by_role("alert")).to_contain_text(wrong)
    page.get_by_label("image (array)").nth(1).select_option("gauss.result")
    page.get_by_label("Short name").fill("edges")
    page.get_by_label("Title").fill("Edges of all")
    _look(page, "flow_edit")
    page.get_by_role("button", name="Keep as a new version").click()
    expect(page.get_by_role("status")).to_contain_text("Kept as version 1")
    expect(page.get_by_text("sigma = asked at each run")).to_be_visible()
    page.get_by_role("link", name="Change it").click()
    page.get_by_role("button", name="Take the step threshold away").press("Enter")
    page.get_by_role("button", name="Keep as a new version").press("Enter")
    expect(page.get_by_role("heading", name="version 2")).to_be_visible()
    _look(page, "flow")
    page.get_by_role("link", name="Run it on images").click()
    expect(page.get_by_label("Sigma")).to_have_value("2.5")
    page.goto(f"{page.url}&name__startswith=sub-")
    page.get_by_label("One item is").select_option("subject_id")
    page.get_by_role("button", name="Change").click()
    expect(page.get_by_text("3 items")).to_be_visible()
    page.goto(f"{site.url}/flows/edit?from=recipe:brain-slices")
    expect(page.get_by_text("Nothing is wrong with it")).to_be_visible()
    page.get_by_role("button", name="Draw it anew").click()
    expect(page.get_by_text("Nothing is wrong with it")).to_be_visible()


def test_a_batch_is_cancelled_only_after_a_question(page: Page, site: Site) -> None:
    query = {"of": "images", "where": [{"field": "project", "value": "brain"}]}
    with site.client("ria") as client:
        order = {"node": "histogram", "query": query, "name": "To cancel"}
        batch = client.post("batches", json=order).json()
    with recording(site.app.state.service.database, "worker") as book:
        told = update(Batch).where(Batch.id == batch["id"])
        book.session.execute(told.values(reason="tcp://far does not answer."))
    page.goto(f"{site.url}/batches/{batch['id']}")
    expect(page.get_by_text("tcp://far does not answer.")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel this batch")).to_be_hidden()
    page.locator("#ask-cancel").press("Enter")
    page.get_by_role("button", name="Cancel this batch").press("Enter")
    expect(page.get_by_text("Cancelled: what ended stays")).to_be_visible()
    with site.client("ria") as client:
        assert client.get(f"batches/{batch['id']}").json()["state"] == "cancelled"


def test_who_only_reads_is_offered_nothing_that_changes(
    context: BrowserContext, site: Site
) -> None:
    context.clear_cookies()
    context.add_cookies([site.cookie("leo")])
    page = context.new_page()
    page.goto(f"{site.url}/inbox")
    expect(page.get_by_text("You edit no project")).to_be_visible()
    page.goto(f"{site.url}/run")
    expect(page.get_by_text("edit no project that results could go to")).to_be_visible()
    page.close()


@pytest.mark.parametrize(
    "path",
    [
        "inbox",
        "inbox/rules",
        "flows/edit",
        "run",
        "batches/x/cancel",
        "batches/x/retry",
    ],
)
def test_a_form_without_the_token_of_a_page_changes_nothing(
    site: Site, path: str
) -> None:
    cookie = site.cookie("ria")
    cookies = {cookie["name"]: cookie["value"]}
    with httpx.Client(cookies=cookies) as client:
        for fields in ({"act": "accept"}, {"act": "accept", "_xsrf": "0" * 64}):
            answer = client.post(f"{site.url}/{path}", data=fields)
            assert answer.status_code == 403, answer.text
        # Nor is a page with a token read by a script of the same origin.
        answer = client.get(f"{site.url}/inbox", headers={"Sec-Fetch-Dest": "empty"})
        assert answer.status_code == 403


def test_every_route_stands_on_the_page_of_the_interface(
    page: Page, site: Site
) -> None:
    page.goto(f"{site.url}/reference")
    document = site.app.openapi()
    offered = sum(len(methods) for methods in document["paths"].values())
    expect(page.locator(".routes summary")).to_have_count(offered)
    page.get_by_text("/search", exact=True).first.focus()
    page.locator("summary", has_text="/batches").filter(has_text="POST").first.click()
    opened = page.locator("details[open]")
    expect(opened).to_contain_text("Needs the scope runs:write.")
    expect(opened.get_by_role("row", name="query needed")).to_be_visible()
    _look(page, "reference")
