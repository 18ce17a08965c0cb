"""Who may see what, asked of a real hub."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests import slides
from tests.browser import ROOT
from tests.hub_process import RunningHub, wait_for_status

pytestmark = [pytest.mark.hub]

CATALOG = "services/catalog/api/v1/images"
DEMO = {"collection": "histology101"}


@pytest.fixture(scope="module")
def forbidden(
    hub: RunningHub, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """An image in a collection that only researchers may see: its id and name."""
    slide = _slide(tmp_path_factory.mktemp("slides") / "secret.svs")
    added = _theatrum(
        "images",
        "add",
        str(slide),
        "--collection=secret",
        "--group=researchers",
        hub=hub,
    )
    assert added.returncode == 0, added.stderr
    with hub.api("researcher") as researcher:
        (image,) = researcher.get(CATALOG, params={"collection": "secret"}).json()[
            "items"
        ]
    return dict(image)


def test_a_student_gets_403_on_the_formgrader(hub: RunningHub) -> None:
    with hub.sign_in("student1") as student:
        answer = student.get("services/histology101/formgrader")
    assert answer.status_code == 403


def test_a_teacher_gets_the_formgrader(hub: RunningHub) -> None:
    with hub.sign_in("teacher") as teacher:
        answer = teacher.get("services/histology101/formgrader/manage_assignments")
    assert answer.status_code == 200
    assert "Assignments" in answer.text


@pytest.mark.parametrize(
    "page",
    [
        "",
        "hub/home",
        "services/catalog/",
        "services/voila/voila/render/slide_atlas.ipynb",
        "services/histology101/formgrader",
        "user/student1/lab",
    ],
)
def test_anonymous_is_sent_to_the_sign_in(hub: RunningHub, page: str) -> None:
    with httpx.Client(base_url=hub.url, follow_redirects=True, trust_env=False) as who:
        answer = who.get(page)
    assert answer.url.path == "/hub/login", answer.url


def test_a_wrong_password_is_not_let_in(hub: RunningHub) -> None:
    wrong = replace(hub, passwords=dict.fromkeys(hub.passwords, "wrong"))
    refused = pytest.raises(AssertionError, match="Invalid username or password")
    with refused, wrong.sign_in("student1"):
        pass


def test_a_student_does_not_see_the_forbidden_image_in_the_list(
    hub: RunningHub, forbidden: dict[str, str]
) -> None:
    with hub.api("student1") as student:
        listed = student.get(CATALOG).json()["items"]
    assert listed
    assert forbidden["id"] not in {image["id"] for image in listed}


@pytest.mark.parametrize("route", ["", "/thumbnail", "/view"])
def test_an_absent_and_a_forbidden_image_answer_the_same(
    hub: RunningHub, forbidden: dict[str, str], route: str
) -> None:
    method = "POST" if route == "/view" else "GET"
    absent_id = "000000000000"
    with hub.api("student1") as student:
        absent = student.request(method, f"{CATALOG}/{absent_id}{route}")
        hidden = student.request(method, f"{CATALOG}/{forbidden['id']}{route}")
    assert absent.status_code == hidden.status_code == 404
    assert _comparable(absent, absent_id) == _comparable(hidden, forbidden["id"])


def test_a_right_that_is_granted_works_without_a_restart(
    hub: RunningHub, tmp_path: Path
) -> None:
    slide = _slide(tmp_path / "late.svs")
    _theatrum("images", "add", str(slide), "--collection=late", hub=hub)
    query = {"collection": "late"}
    with hub.api("student2") as student:
        assert student.get(CATALOG, params=query).json()["items"] == []
        _theatrum("collections", "grant", "late", "nbgrader-histology101", hub=hub)
        (image,) = student.get(CATALOG, params=query).json()["items"]
        assert student.post(f"{CATALOG}/{image['id']}/view").status_code == 200
        _theatrum("collections", "revoke", "late", "nbgrader-histology101", hub=hub)
        assert student.post(f"{CATALOG}/{image['id']}/view").status_code == 404


def test_a_session_reads_but_does_not_open_views(hub: RunningHub) -> None:
    with hub.sign_in("student1") as student:
        page = student.get("services/catalog/")
        (image,) = student.get(CATALOG, params=DEMO).json()["items"]
        view = student.post(f"{CATALOG}/{image['id']}/view")
    assert page.status_code == 200
    assert image["title"] in page.text
    assert view.status_code == 403


def test_a_tile_address_works_without_any_sign_in_and_not_when_changed(
    hub: RunningHub,
) -> None:
    with hub.api("student1") as student:
        (image,) = student.get(CATALOG, params=DEMO).json()["items"]
        view = student.post(f"{CATALOG}/{image['id']}/view").json()
    tile = view["tiles"].format(z=0, x=0, y=0)
    token = tile.split("/")[4]
    with httpx.Client(base_url=hub.url, trust_env=False) as anybody:
        good = anybody.get(tile)
        bad = anybody.get(tile.replace(token, _changed(token)))
    assert good.status_code == 200
    assert "immutable" in good.headers["Cache-Control"]
    assert bad.status_code == 403
    assert bad.headers["Content-Type"].startswith("application/problem+json")


def test_a_slide_whose_file_goes_missing_answers_410_with_a_sentence(
    hub: RunningHub, tmp_path: Path
) -> None:
    slide = _slide(tmp_path / "going.svs")
    group = "--group=nbgrader-histology101"
    _theatrum("images", "add", str(slide), "--collection=going", group, hub=hub)
    with hub.api("student1") as student:
        (image,) = student.get(CATALOG, params={"collection": "going"}).json()["items"]
        address = f"{CATALOG}/{image['id']}/view"
        tiles = student.post(address).json()["tiles"]
        slide.unlink()
        view = student.post(address)
        tile = wait_for_status(student, tiles.format(z=0, x=0, y=0), 410)
    # Other tests count what a student sees.
    _theatrum("collections", "revoke", "going", "nbgrader-histology101", hub=hub)
    for answer in (view, tile):
        assert answer.status_code == 410
        assert answer.headers["Content-Type"].startswith("application/problem+json")
        assert answer.json()["title"]
        assert str(tmp_path) not in answer.text


def test_the_tile_address_is_the_same_for_the_whole_class(hub: RunningHub) -> None:
    addresses = set()
    for name in ("student1", "student2"):
        with hub.api(name) as student:
            (image,) = student.get(CATALOG, params=DEMO).json()["items"]
            view = student.post(f"{CATALOG}/{image['id']}/view").json()
            addresses.add(view["tiles"])
    assert len(addresses) == 1


def test_no_token_and_no_password_is_in_the_log(hub: RunningHub) -> None:
    with hub.api("student1") as student:
        (image,) = student.get(CATALOG, params=DEMO).json()["items"]
        view = student.post(f"{CATALOG}/{image['id']}/view").json()
        student.get(view["tiles"].format(z=0, x=0, y=0))
        token = student.headers["Authorization"].split()[1]
    log = (hub.home / "logs" / "hub.log").read_text()
    secrets = [token, view["tiles"].split("/")[4], *hub.passwords.values()]
    assert [secret for secret in secrets if secret in log] == []


def test_a_token_that_may_only_read_the_catalogue_changes_nothing_there(
    hub: RunningHub,
) -> None:
    asked = {
        "note": "reads only",
        "expires_in": 600,
        "scopes": ["access:services!service=catalog", "custom:catalog:read"],
    }
    project = {"name": "of-a-token"}
    projects = "services/catalog/api/v1/projects"
    with hub.api("researcher") as client:
        made = client.post("hub/api/users/researcher/tokens", json=asked)
        made.raise_for_status()
        narrowed = {"Authorization": f"token {made.json()['token']}"}
        assert client.get(CATALOG, headers=narrowed).status_code == 200
        refused = client.post(projects, json=project, headers=narrowed)
        assert refused.status_code == 403
        assert "does not carry" in refused.json()["detail"]
        assert client.post(projects, json=project).status_code == 201
        # Nor is a person an administrator of the hub.
        assert client.get("services/catalog/api/v1/config").status_code == 403


def _slide(path: Path) -> Path:
    return slides.write_slide(path, slides.SlideSpec())


def _theatrum(*arguments: str, hub: RunningHub) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("theatrum")
    return subprocess.run(
        [command, *arguments, f"--home={hub.home}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def _comparable(answer: httpx.Response, image_id: str) -> tuple[str, str]:
    return answer.text.replace(image_id, "ID"), answer.headers["Content-Type"]


def _changed(token: str) -> str:
    return ("A" if token[0] != "A" else "B") + token[1:]
