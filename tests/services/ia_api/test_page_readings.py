"""What the administrator's pages read and tell, without a hub and a browser."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from sqlalchemy import insert, text

from hub import forms
from hub.durable.sealing import Sealer
from hub.signin import Person
from services.ia_api.database import open_database
from services.ia_api.errors import BadInvocation, NoSuchJob
from services.ia_api.jobs import EventRow, Wanted
from services.ia_api.models import Audit, Job, new_job_id
from services.ia_api.pages import charts, readings, rendering, rights, wording
from services.ia_api.pages.acts import acts
from services.ia_api.pages.chosen import chosen
from services.ia_api.pages.front import cell, front
from services.ia_api.pages.readings import Cursor, Sought
from services.ia_api.settings import read
from services.ia_api.states import STATES
from services.ia_api.store import Store
from tests import postgres

ROOT = Path(__file__).resolve().parents[3]
MANY = 10_000
NOW = 1_790_000_000.0


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Makes databases of either kind; an empty address is SQLite in the folder."""
    if request.param == "sqlite":
        yield str
        return
    reason = postgres.missing()
    if reason is not None:
        pytest.skip(reason)
    with postgres.cluster() as cluster:
        yield cluster.new_database


@pytest.fixture(scope="module")
def store(
    new_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    """A store of ten thousand jobs; sixteen were received at each moment."""
    folder = tmp_path_factory.mktemp("store")
    database = open_database(new_url(), folder)
    with database.writing() as session:
        session.execute(
            insert(Job),
            [
                _row(
                    number,
                    state="dead" if number % 10 == 0 else "succeeded",
                    created=NOW + number // 16,
                )
                for number in range(MANY)
            ],
        )
    yield Store(database, Sealer(folder / "token.key"), read({}))
    database.close()


def _row(number: int, **other: Any) -> dict[str, Any]:
    return {
        "job_id": new_job_id(),
        "idem_key": f"key-{number}",
        "app": f"app-{number % 3}",
        "application_id": "app",
        "slide_id": f"slide-{number}",
        "callback_url": "https://sps.example.org/v1",
        "action": "create",
        "input_json": {"type": "wholeSlide"},
        "deadline": NOW + 1e6,
        **other,
    }


def test_the_pages_of_the_list_hold_every_job_once_and_newest_first(
    store: Store,
) -> None:
    seen: list[str] = []
    times: list[float] = []
    before: Cursor | None = None
    while True:
        page = readings.listing(store, Wanted(), before=before, limit=500)
        seen += [row.job_id for row in page.rows]
        times += [row.created for row in page.rows]
        if page.older is None:
            break
        before = Cursor.read(str(page.older))
    assert len(seen) == len(set(seen)) == MANY
    assert times == sorted(times, reverse=True)


def test_newer_leads_back_to_the_very_page(store: Store) -> None:
    first = readings.listing(store, Wanted())
    second = readings.listing(store, Wanted(), before=first.older)
    back = readings.listing(store, Wanted(), after=second.newer)
    assert [row.job_id for row in back.rows] == [row.job_id for row in first.rows]
    assert back.newer is None
    assert first.newer is None


def test_a_page_of_the_list_is_found_by_the_index(store: Store) -> None:
    explain = "EXPLAIN QUERY PLAN" if store.database.is_sqlite else "EXPLAIN"
    with store.database.reading() as session:
        if not store.database.is_sqlite:
            session.execute(text("ANALYZE ia_job"))
        query = (
            " SELECT job_id FROM ia_job WHERE created < 1 OR "
            "(created = 1 AND job_id > 'a') ORDER BY created DESC, job_id LIMIT 51"
        )
        plan = session.execute(text(explain + query)).all()
    assert any("ia_job_created" in str(row) for row in plan), plan


def test_the_choice_of_jobs_holds_on_every_page(store: Store) -> None:
    wanted = Wanted(states=("dead",), app="app-0")
    page = readings.listing(store, wanted)
    older = readings.listing(store, wanted, before=page.older)
    rows = [*page.rows, *older.rows]
    assert len(rows) == 2 * readings.PAGE
    assert {(row.state, row.app) for row in rows} == {("dead", "app-0")}


@pytest.mark.parametrize(
    "wrong", ["", "1", "~", "x~a", "nan~a", "inf~a", "-1~a", f"1~{'a' * 17}"]
)
def test_an_address_that_names_no_place_is_refused(wrong: str) -> None:
    with pytest.raises(BadInvocation):
        Cursor.read(wrong)


def test_percentiles_are_values_that_there_were() -> None:
    assert readings.percentile([], 50) is None
    assert readings.percentile([3.0], 95) == 3.0
    values = [float(one) for one in range(1, 101)]
    assert readings.percentile(values, 50) == 50.0
    assert readings.percentile(values, 95) == 95.0


def test_hours_count_every_ending_in_its_hour(
    tmp_path: Path, new_url: Callable[[], str]
) -> None:
    database = open_database(new_url(), tmp_path)
    now = time.time()
    rows = [
        _row(0, state="succeeded", created=now - 9, started=now - 8, ended=now - 4),
        _row(1, state="succeeded", created=now - 9, started=now - 8, ended=now - 2),
        _row(2, state="dead", created=now - 9, started=now - 8, ended=now),
        _row(3, state="cancelled", created=now - 7300, started=None, ended=now - 7200),
        _row(4, state="dead", created=now - 9e5, started=now - 9e5, ended=now - 9e5),
    ]
    with database.writing() as session:
        for row in rows:
            session.add(Job(**row))
    store = Store(database, Sealer(tmp_path / "token.key"), read({}))
    found = readings.hours(store, 24)
    database.close()
    assert len(found) == 24
    assert sum(hour.ended["succeeded"] for hour in found) == 2
    assert sum(hour.ended["dead"] for hour in found) == 1
    assert found[-3].ended["cancelled"] == 1
    longest = max(hour.p95_s for hour in found if hour.p95_s is not None)
    assert longest == pytest.approx(6.0)
    # The figures and the bars say the same.
    chart = charts.ended_per_hour(found)
    assert {bar.state for bar in chart.bars} == {"succeeded", "dead", "cancelled"}
    assert all(0 <= bar.x < bar.x + bar.width <= chart.width for bar in chart.bars)
    assert all(0 <= bar.y < bar.y + bar.height <= chart.floor for bar in chart.bars)


def test_charts_of_nothing_have_axes_and_no_marks() -> None:
    hours = [
        readings.Hour(NOW + 3600 * n, dict.fromkeys(readings.ENDINGS, 0), None, None)
        for n in range(24)
    ]
    counts, lengths = charts.ended_per_hour(hours), charts.durations(hours)
    assert not counts.bars
    assert all(not line.paths and not line.dots for line in lengths.lines)
    assert len(counts.rows) == len(lengths.rows) == 5


def test_a_line_of_durations_is_broken_where_an_hour_has_none() -> None:
    values = [1.0, 2.0, None, 4.0]
    hours = [
        readings.Hour(NOW + 3600 * n, {}, one, one) for n, one in enumerate(values)
    ]
    half, _ = charts.durations(hours).lines
    assert len(half.paths) == 2
    assert len(half.dots) == 3


def test_steps_tell_what_each_took_in_the_attempt_that_got_there() -> None:
    history = [
        EventRow(0.0, "received", "", None),
        EventRow(1.0, "queued", "", None),
        EventRow(5.0, "running", "", "one"),
        EventRow(6.0, "checkpoint", "result_created", "one"),
        EventRow(8.0, "checkpoint", "info", "one"),
        EventRow(9.0, "retry_wait", "unreachable", "one"),
        EventRow(20.0, "queued", "", None),
        EventRow(21.0, "running", "", "two"),
        EventRow(24.0, "checkpoint", "files", "two"),
        EventRow(25.0, "cancelled", "by hand", None),
    ]
    steps = readings.steps(history)
    assert [step.took_s for step in steps] == [1.0, 2.0, 3.0, None, None]
    attempts = readings.attempts(history)
    assert [(one.worker, one.outcome, one.detail) for one in attempts] == [
        ("one", "retry_wait", "unreachable"),
        ("two", "cancelled", "by hand"),
    ]
    assert [one.ended for one in attempts] == [9.0, 25.0]


def test_a_finished_job_offers_nothing_and_says_why(store: Store) -> None:
    done = readings.listing(store, Wanted(states=("succeeded",)), limit=1).rows[0]
    found = readings.choices(store, store.get(done.job_id))
    assert (found.retry, found.cancel, found.supersede) == (False, False, False)
    assert "viewer" in found.why_not


def test_a_failed_job_without_a_token_says_how_to_go_on(store: Store) -> None:
    failed = readings.listing(store, Wanted(states=("dead",)), limit=1).rows[0]
    found = readings.choices(store, store.get(failed.job_id))
    assert not found.retry
    assert "ask for the analysis in the viewer" in found.why_not


def test_the_audit_log_is_read_whole_and_by_choice(
    tmp_path: Path, new_url: Callable[[], str]
) -> None:
    database = open_database(new_url(), tmp_path)
    with database.writing() as session:
        for number in range(2500):
            session.add(Audit(caller=f"who-{number % 2}", action="create", app="a"))
    store = Store(database, Sealer(tmp_path / "token.key"), read({}))
    lines = list(readings.audit_lines(store, Sought()))
    chosen_lines = list(readings.audit_lines(store, Sought(caller="who-1")))
    database.close()
    assert [line.id for line in lines] == list(range(2500, 0, -1))
    assert len(chosen_lines) == 1250


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx"])
def test_no_cell_of_the_export_is_a_formula(text: str) -> None:
    assert cell(text) == f"'{text}"
    assert cell("10.0.0.1") == "10.0.0.1"


def test_every_state_step_and_group_has_words() -> None:
    assert set(wording.STATES) == set(STATES)
    icons = [word.icon for word in wording.STATES.values()]
    assert len(icons) == len(set(icons)), "a state is told by its icon, not its colour"


def test_secrets_are_never_shown() -> None:
    settings = read(
        {
            "path_secret": "SECRETSEGMENT0123456789",
            "credentials": {"user": "robot", "password": "SECRETPASSWORD"},
        }
    )
    shown = {row.name: row.value for row in chosen(settings)}
    assert shown["path_secret"] == shown["credentials.password"] == "set (hidden)"
    assert shown["credentials.user"] == "robot"
    assert "SECRET" not in str(shown)


def test_who_is_in_no_group_is_told_what_is_told_of_the_absent() -> None:
    with pytest.raises(rights.NoSuchPage) as refused:
        rights.member_of(_person("nbgrader-histology101"), "")
    hidden = rendering._told(refused.value)
    absent = rendering._told(NoSuchJob("there is no such job"))
    assert (hidden.status_code, hidden.body) == (absent.status_code, absent.body)
    assert hidden.status_code == 404


def test_viewers_look_administrators_act_and_slide_ids_have_their_own_group() -> None:
    viewer = rights.member_of(_person("ia-api-viewers"), "")
    admin = rights.member_of(_person("ia-api-admins"), "")
    assert (viewer.acts, admin.acts) == (False, True)
    assert (viewer.sees_slides, admin.sees_slides) == (False, False)
    seeing = rights.member_of(_person("ia-api-viewers", "ia-api-phi"), "")
    assert (seeing.acts, seeing.sees_slides) == (False, True)
    with pytest.raises(rights.NoSuchPage):
        rights.member_of(_person("ia-api-phi"), "")


def test_a_page_token_is_of_one_session_of_one_installation() -> None:
    tokens = {forms.xsrf_of(*one) for one in (("a", "k"), ("b", "k"), ("a", "l"))}
    assert len(tokens) == 3


def _person(*groups: str) -> Person:
    return Person("somebody", "user", frozenset(groups))


def test_an_event_that_is_new_to_the_pages_is_told_by_its_own_name() -> None:
    assert wording.event("something-new").text == "something-new"


@pytest.mark.parametrize("route", [*front.routes, *acts.routes], ids=str)
def test_every_page_is_documented(route: APIRoute) -> None:
    text = (ROOT / "docs" / "ia_api.md").read_text()
    page = re.sub(r"\{job_id\}.*", "{id}", route.path)
    assert f"`{page}`" in text or page.startswith("/static/")
