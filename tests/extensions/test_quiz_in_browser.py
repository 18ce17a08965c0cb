"""Questions as a student has them: keyboard, a narrow window, a kernel that hangs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, expect

from tests.browser import (
    WAIT_MS,
    Lab,
    Notebook,
    Traffic,
    browser,
    jupyter_lab,
    require_chromium,
    write_notebook,
)
from tests.slides import YCBCR, write_slide

pytestmark = pytest.mark.browser

LONG = "Kidney, with a text so long that it wraps in a window as narrow as a phone"
CELLS = [
    "from theatrum import quiz",
    f"quiz.choice('organ', 'Is it <b>this</b>?', dict(a='Lung', b='<i>', c='{LONG}'))",
    "quiz.choice('parts', 'Which parts?', dict(a='Nuclei', b='Mucus'), multiple=True)",
    "quiz.click('nucleus', 'Click a nucleus.', 'slide.svs', height='300px')",
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    require_chromium()
    folder = tmp_path_factory.mktemp("notebooks")
    with jupyter_lab(folder, tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture(scope="module")
def context(
    lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrowserContext]:
    with browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


class Student:
    """A notebook of questions in a folder of its own."""

    def __init__(self, lab: Lab, context: BrowserContext, name: str) -> None:
        self.folder = lab.folder / name
        self.folder.mkdir()
        write_slide(self.folder / "slide.svs", YCBCR)
        write_notebook(self.folder / "quiz.ipynb", CELLS)
        self.traffic = Traffic.of(context)
        self.page = context.new_page()
        self.notebook = Notebook.open(
            self.page, lab.url, f"{name}/quiz.ipynb", lab.token
        )
        self.notebook.run_all()

    def question(self, number: int) -> Locator:
        return self.page.locator(".theatrum-question").nth(number)

    def says(self, number: int, text: str) -> None:
        """Wait until the line under a question says this."""
        state = self.question(number).locator(".theatrum-state")
        expect(state).to_contain_text(text, timeout=WAIT_MS)

    def answer(self, question: str) -> Any:
        return json.loads((self.folder / f"{question}.answer.json").read_text())[
            "answer"
        ]


@pytest.fixture
def student(
    lab: Lab, context: BrowserContext, request: pytest.FixtureRequest
) -> Iterator[Student]:
    found = Student(lab, context, request.node.name[:40])
    yield found
    found.page.close()


def test_a_choice_is_made_cleared_and_brought_back_by_keyboard_alone(
    lab: Lab, student: Student
) -> None:
    page, organ = student.page, student.question(0)
    lung, italic = organ.get_by_label("Lung"), organ.get_by_label("<i>")
    student.says(0, "Not answered yet")
    lung.focus()
    page.keyboard.press("Space")
    student.says(0, "Saved")
    page.keyboard.press("ArrowDown")
    expect(italic).to_be_checked()
    page.keyboard.press("x")  # in JupyterLab this would cut the cell
    expect(student.page.locator(".theatrum-question")).to_have_count(3)
    page.keyboard.press("Tab")
    clear = organ.get_by_role("button", name="Clear")
    expect(clear).to_be_focused()
    page.keyboard.press("Enter")
    student.says(0, "Not answered yet")
    expect(italic).not_to_be_checked()
    expect(clear).to_be_focused()
    assert not (student.folder / "organ.answer.json").exists()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    student.says(0, "Saved")
    expect(italic).to_be_checked()
    assert student.answer("organ") == {"choice": ["b"]}
    assert student.traffic.outside(lab.url) == []


def test_text_of_a_question_is_never_markup(student: Student) -> None:
    expect(student.question(0)).to_contain_text("Is it <b>this</b>?")
    assert student.question(0).locator("b, i").count() == 0


def test_an_answer_is_not_called_saved_before_the_kernel_has_saved_it(
    student: Student,
) -> None:
    parts = student.question(1)
    parts.get_by_label("Nuclei").check()
    student.says(1, "Saved")
    kernel = int(student.notebook.execute("import os; print(os.getpid())"))
    os.kill(kernel, signal.SIGSTOP)
    try:
        parts.get_by_label("Mucus").check()
        student.says(1, "Saving…")
        student.says(1, "the kernel does not answer")
        assert student.answer("parts") == {"choice": ["a"]}
    finally:
        os.kill(kernel, signal.SIGCONT)
    student.says(1, "Saved")
    assert student.answer("parts") == {"choice": ["a", "b"]}


def test_answers_are_shown_again_by_a_new_kernel(student: Student) -> None:
    student.question(1).get_by_label("Mucus").check()
    student.says(1, "Saved")
    slide = student.question(2).locator(".leaflet-container")
    student.question(2).get_by_label("Place a point").click()
    slide.click(position={"x": 400, "y": 150})
    student.says(2, "Saved")
    before = student.answer("nucleus")
    student.page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()"
    )
    student.notebook.wait_until_idle()
    student.notebook.run_all()
    expect(student.question(1).get_by_label("Mucus")).to_be_checked()
    expect(student.question(1).get_by_label("Nuclei")).not_to_be_checked()
    student.says(1, "Saved")
    expect(student.question(2).locator(".leaflet-marker-icon")).to_have_count(1)
    assert student.answer("nucleus") == before


def test_a_narrow_window_cuts_nothing_off(student: Student) -> None:
    student.page.evaluate(
        "() => window.jupyterapp.commands.execute('application:toggle-left-area')"
    )
    student.page.set_viewport_size({"width": 420, "height": 900})
    for number in (0, 1):
        question = student.question(number)
        question.scroll_into_view_if_needed()
        width, content = question.evaluate("(e) => [e.clientWidth, e.scrollWidth]")
        assert 0 < content <= width
