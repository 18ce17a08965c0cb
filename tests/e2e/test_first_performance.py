"""The whole story: two students, one system account, a slide, a grade, feedback.

Everything is done as people do it: in a browser with a fresh profile, through the
hub's public address. The expected points are worked out here from where the mouse
was, by the rules that the questions state.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from shapely import Polygon

from hub.demo_slide import STRUCTURES
from tests.browser import Notebook, Traffic, browser
from tests.hub_process import RunningHub
from tests.slide_on_page import Point, SlideOnPage

pytestmark = [pytest.mark.hub, pytest.mark.browser, pytest.mark.long]

COURSE, WORK = "histology101", "slide1"
FORMGRADER = f"services/{COURSE}/formgrader"
# Cells of the assignment's notebook.
EXPLORE, QUESTIONS = 1, {"q1": 4, "q2": 7, "q3": 10, "q4": 13, "q5": 16}
FOLLICLE, PEN = (4750.0, 3650.0), (9200.0, 8400.0)
GLANDS_OUTSIDE = (2500.0, 6000.0)


@dataclass
class Outcome:
    """What one student did and saw."""

    name: str
    drawn: list[Point]
    read: list[Point]
    expected: float
    validated: str
    traffic: Traffic
    first_view: list[int]


@dataclass(frozen=True)
class Answers:
    """What a student will do."""

    choice: str
    follicle: Point
    outline: list[Point]
    ticks: tuple[str, ...]
    points: float
    """For all questions but the outline."""


def _lumen() -> Polygon:
    """The vessel's lumen as the slide's builder placed it, level-0 pixels."""
    (vessel,) = [one for one in STRUCTURES if one.kind == "vessel"]
    return Polygon(vessel.outline)


def _grown(outline: Polygon, factor: float) -> list[Point]:
    """Eight corners around the outline's centre, `factor` of the way to its rim."""
    centre = outline.centroid
    rim = outline.exterior.coords[:-1]
    return [
        (centre.x + (x - centre.x) * factor, centre.y + (y - centre.y) * factor)
        for x, y in rim[:: len(rim) // 8][:8]
    ]


@pytest.fixture(scope="module")
def outcomes(
    hub: RunningHub, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcome]:
    """Both students' work, handed in."""
    lumen = _lumen()
    plans = {
        "student1": Answers(
            choice="DAB, precipitated",
            follicle=FOLLICLE,
            outline=_grown(lumen, 1.05),
            ticks=("Glands of", "Bundles of", "A submucosa", "A fold"),
            points=1 + 2 + 2 + 2,
        ),
        "student2": Answers(
            choice="Melanin",
            follicle=GLANDS_OUTSIDE,
            outline=_grown(lumen, 0.78),
            ticks=("Glands of", "Bundles of", "A submucosa", "Hyaline"),
            points=0 + 0 + 2 + 2 * (3 - 1) / 4,
        ),
    }
    found = {}
    for name, plan in plans.items():
        with browser(tmp_path_factory.mktemp("profile")) as context:
            found[name] = _hand_in(hub, context, name, plan)
    return found


@pytest.fixture(scope="module")
def grades(
    hub: RunningHub,
    outcomes: dict[str, Outcome],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, dict[str, Any]]:
    """The teacher's grade book after collecting, grading and giving feedback."""
    with browser(tmp_path_factory.mktemp("profile")) as context:
        traffic = Traffic.of(context)
        page = _sign_in(hub, context, "teacher")
        page.goto(f"{hub.url}{FORMGRADER}/manage_assignments")
        expect(page.get_by_role("link", name=WORK).first).to_be_visible()
        _ask(page, f"api/assignment/{WORK}/collect")
        for name in outcomes:
            _ask(page, f"api/submission/{WORK}/{name}/autograde")
        _ask(page, f"api/assignment/{WORK}/generate_feedback")
        _ask(page, f"api/assignment/{WORK}/release_feedback")
        submissions = _fetch(page, f"api/submissions/{WORK}", "GET")
        page.goto(f"{hub.url}{FORMGRADER}/manage_submissions/{WORK}")
        expect(page.get_by_text("student2").first).to_be_visible()
        page.screenshot(path=_picture(hub, "teacher", "graded"))
        assert traffic.outside(hub.url) == []
    return {entry["student"]: entry for entry in submissions}


def test_every_tile_of_the_first_view_comes_at_once(
    outcomes: dict[str, Outcome],
) -> None:
    for outcome in outcomes.values():
        assert outcome.first_view, "no tile was asked for"
        assert set(outcome.first_view) == {200}


def test_a_polygon_drawn_by_mouse_is_read_in_python_within_a_pixel(
    outcomes: dict[str, Outcome],
) -> None:
    for outcome in outcomes.values():
        assert len(outcome.read) == len(outcome.drawn)
        for read, drawn in zip(outcome.read, outcome.drawn, strict=True):
            assert abs(read[0] - drawn[0]) <= 1, (read, drawn)
            assert abs(read[1] - drawn[1]) <= 1, (read, drawn)


def test_validation_passes_when_all_is_answered(outcomes: dict[str, Outcome]) -> None:
    for outcome in outcomes.values():
        assert "Success" in outcome.validated


def test_the_two_students_get_their_own_predicted_points(
    outcomes: dict[str, Outcome], grades: dict[str, dict[str, Any]]
) -> None:
    assert set(grades) == set(outcomes)
    for name, outcome in outcomes.items():
        assert grades[name]["autograded"], grades[name]
        assert grades[name]["max_score"] == 10
        assert grades[name]["score"] == pytest.approx(outcome.expected, abs=1e-4)
    assert outcomes["student1"].expected == 10
    assert 0 < outcomes["student2"].expected < 6


@pytest.mark.usefixtures("grades")
def test_each_student_reads_the_feedback_on_their_own_work_only(
    hub: RunningHub, outcomes: dict[str, Outcome], tmp_path: Path
) -> None:
    for name, outcome in outcomes.items():
        with browser(tmp_path / name) as context:
            traffic = Traffic.of(context)
            page = _sign_in(hub, context, name)
            panel = _assignments(page)
            panel.get_by_role("button", name="Fetch Feedback").click()
            expect(panel.get_by_text("(view feedback)").first).to_be_visible()
            home = hub.home / "homes" / name
            (feedback,) = (home / COURSE / WORK / "feedback").glob("*/slide1.html")
            page.goto(f"{hub.url}user/{name}/files/{feedback.relative_to(home)}")
            page.screenshot(path=_picture(hub, name, "feedback"))
            assert traffic.outside(hub.url) == []
        text = re.sub(r"<[^>]+>", "", feedback.read_text())
        assert "You" in text
        assert "HIDDEN TESTS" not in text
        assert "quiz.grade(" not in text
        told, *_ = re.findall(r"\(Score: ([\d.]+) / ([\d.]+)\)", text)
        assert float(told[0]) == pytest.approx(outcome.expected, abs=0.05)
        assert float(told[1]) == 10
    with hub.api("student1") as first:
        everything = first.get(
            f"services/courses/api/v1/courses/{COURSE}/submissions"
        ).json()["submissions"]
        assert {entry["student"] for entry in everything} == {"student1"}
        (other,) = (hub.home / "exchange" / COURSE / "submitted" / WORK).glob(
            "student2/*"
        )
        address = f"services/courses/api/v1/courses/{COURSE}/assignments/{WORK}"
        for end in ("", "/feedback"):
            answer = first.get(f"{address}/submissions/student2/{other.name}{end}")
            assert answer.status_code == 404


def test_no_request_left_the_origin(
    hub: RunningHub, outcomes: dict[str, Outcome]
) -> None:
    for outcome in outcomes.values():
        assert len(outcome.traffic.requests) > 100
        assert outcome.traffic.outside(hub.url) == []


def test_an_answer_is_shown_again_when_the_notebook_is_reopened(
    hub: RunningHub, outcomes: dict[str, Outcome], tmp_path: Path
) -> None:
    with browser(tmp_path / "again") as context:
        page = _sign_in(hub, context, "student2")
        notebook = _open_work(hub, page, "student2")
        notebook.run(QUESTIONS["q1"])
        expect(page.get_by_label("Melanin")).to_be_checked()
        expect(page.locator(".theatrum-state").first).to_contain_text("Saved")


def _hand_in(
    hub: RunningHub, context: BrowserContext, name: str, plan: Answers
) -> Outcome:
    traffic = Traffic.of(context)
    page = _sign_in(hub, context, name)
    _assignments(page).get_by_role("button", name="Fetch").click()
    expect(page.get_by_role("button", name="Submit")).to_be_visible()
    notebook = _open_work(hub, page, name)
    page.screenshot(path=_picture(hub, name, "opened"))
    notebook.run(EXPLORE)
    _slide(hub, page, notebook, EXPLORE).placement()
    first_view = [answer.status for answer in traffic.tiles()]
    page.screenshot(path=_picture(hub, name, "explored"))
    for cell in QUESTIONS.values():
        notebook.run(cell)
    drawn = _answer(hub, page, notebook, plan)
    page.screenshot(path=_picture(hub, name, "answered"))
    validated = _validate(page, notebook)
    panel = _assignments(page)
    panel.get_by_role("button", name="Submit").click()
    expect(panel.locator("#submitted_assignments_list")).to_contain_text(WORK)
    page.screenshot(path=_picture(hub, name, "submitted"))
    read = _saved_outline(hub, name)
    return Outcome(
        name=name,
        drawn=drawn,
        read=read,
        expected=plan.points + _outline_points(read),
        validated=validated,
        traffic=traffic,
        first_view=first_view,
    )


def _answer(
    hub: RunningHub, page: Page, notebook: Notebook, plan: Answers
) -> list[Point]:
    """Answer all five questions by mouse; the outline's corners as drawn."""
    page.get_by_label(plan.choice).check()
    follicle = _slide(hub, page, notebook, QUESTIONS["q2"])
    follicle.mark_point(plan.follicle)
    pen = _slide(hub, page, notebook, QUESTIONS["q3"])
    pen.approach(PEN, 1 / 4)
    pen.mark_point(PEN)
    vessel = _slide(hub, page, notebook, QUESTIONS["q4"])
    vessel.approach((13300.0, 5200.0), 1 / 4)
    drawn = vessel.draw_polygon(plan.outline)
    for tick in plan.ticks:
        page.get_by_label(tick).check()
    for cell in QUESTIONS.values():
        state = _output(page, cell).locator(".theatrum-state")
        expect(state).to_contain_text("Saved")
    return drawn


def _sign_in(hub: RunningHub, context: BrowserContext, name: str) -> Page:
    page = context.new_page()
    page.goto(hub.url)
    page.fill("#username_input", name)
    page.fill("#password_input", hub.passwords[name])
    page.click("#login_submit")
    page.wait_for_url("**/lab/**")
    # The welcome notebook comes to the front when it has been read: not before, or
    # it would cover what a test opens in the meantime.
    page.wait_for_function(
        "() => window.jupyterapp?.shell?.currentWidget?.context?.isReady"
    )
    return page


def _assignments(page: Page) -> Any:
    page.evaluate(
        "() => window.jupyterapp.restored.then(() =>"
        " window.jupyterapp.commands.execute('nbgrader:open-assignment-list'))"
    )
    panel = page.locator("#nbgrader-assignment-list")
    expect(panel).to_be_visible()
    expect(panel.locator("#course_list_default")).to_contain_text(COURSE)
    return panel


def _open_work(hub: RunningHub, page: Page, name: str) -> Notebook:
    return Notebook.open(
        page, f"{hub.url}user/{name}/", f"{COURSE}/{WORK}/{WORK}.ipynb"
    )


def _output(page: Page, cell: int) -> Any:
    return (
        page.locator(".jp-NotebookPanel .jp-Cell")
        .nth(cell)
        .locator(".jp-Cell-outputArea")
    )


def _slide(hub: RunningHub, page: Page, notebook: Notebook, cell: int) -> SlideOnPage:
    page.evaluate(
        "(cell) => window.jupyterapp.shell.currentWidget.content.widgets[cell]"
        ".node.scrollIntoView({block: 'start'})",
        cell,
    )
    # 20 480 x 15 360 px in tiles of 240: seven halvings until it fits in one tile.
    return SlideOnPage(page, _output(page, cell), tile=240, top_z=7)


def _validate(page: Page, notebook: Notebook) -> str:
    notebook.save()
    page.get_by_role("button", name="Validate").click()
    dialog = page.locator(".jp-Dialog")
    expect(dialog).to_contain_text("Validation Results", timeout=120_000)
    said: str = dialog.inner_text()
    dialog.get_by_role("button").last.click()
    return said


def _saved_outline(hub: RunningHub, name: str) -> list[Point]:
    file = hub.home / "homes" / name / COURSE / WORK / "q4.answer.json"
    polygon = json.loads(file.read_text())["answer"]["polygon"]
    corners = [(float(x), float(y)) for x, y in polygon]
    return corners[:-1] if corners[0] == corners[-1] else corners


def _outline_points(corners: list[Point]) -> float:
    """Three points by the rule that the question states: all at 75 %, none at 30 %."""
    drawn, lumen = Polygon(corners), _lumen()
    overlap = drawn.intersection(lumen).area / drawn.union(lumen).area
    return 3 * min(1.0, max(0.0, (overlap - 0.3) / (0.75 - 0.3)))


def _ask(page: Page, action: str) -> None:
    """Press what the formgrader's button presses; failures come as 200 too."""
    answer = _fetch(page, action, "POST")
    assert answer["success"], answer.get("log", answer)


def _fetch(page: Page, route: str, method: str) -> Any:
    """Ask the formgrader as its own page does, with the page's XSRF token."""
    return page.evaluate(
        """async ([url, method]) => {
            const xsrf = document.cookie.split("; ")
                .find((cookie) => cookie.startsWith("_xsrf="))?.slice(6) ?? "";
            const headers = {"X-XSRFToken": decodeURIComponent(xsrf)};
            return (await fetch(url, {method, headers})).json();
        }""",
        [f"{page.url.split('/formgrader')[0]}/formgrader/{route}", method],
    )


def _picture(hub: RunningHub, name: str, moment: str) -> Path:
    folder = hub.home / "pictures"
    folder.mkdir(exist_ok=True)
    return folder / f"{name}-{moment}.png"
