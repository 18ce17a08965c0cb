"""Routes by version, tokens, label, patient data: points 1, 2, 8 and 9."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from . import (
    CASE_ACCESSION,
    PASSWORD,
    USER,
    PathologyServer,
    case_scenario,
)
from .client import APP, VERSION_HEADER, Client, gallery, outline, stored
from .schemas import schema_problem
from .versions import parse_version

VERSIONS = ("1.5", "1.6", "1.8", "1.9", "1.10")


# 1. All endpoints, gated by version.


@pytest.mark.parametrize("version", VERSIONS)
def test_an_endpoint_newer_than_the_server_is_not_there(version: str) -> None:
    number = parse_version(version)
    with (
        PathologyServer(case_scenario(), api_version=version) as server,
        Client(server, declared=version) as client,
    ):
        case = client.get("slides/sl-0001/request/images/info")
        assert case.status_code == (200 if number >= (1, 9) else 404)
        case = client.get("requests/ACC%2F2025%200001/images/info")
        assert case.status_code == (200 if number >= (1, 9) else 404)
        quality = client.http.put(
            "slides/sl-0001/qualityControl",
            json={
                "applicationVersion": "1",
                "qualityControl": {"status": "QualityOk", "versionId": "1"},
            },
        )
        assert quality.status_code == (200 if number >= (1, 10) else 404)
        told = client.get("slides/sl-0001/info").json()
        assert ("qualityControl" in told) == (number >= (1, 10))
        assert schema_problem("SlideInfo", told) is None
        assert client.get("info").json()["apiVersion"] == version


def test_versions_are_pairs_of_whole_numbers(shared_api: Path) -> None:
    vectors = json.loads((shared_api / "version_vectors.json").read_text())
    for one in vectors["compare"]:
        a, b = parse_version(one["a"]), parse_version(one["b"])
        assert (a > b) - (a < b) == one["result"]


def test_every_endpoint_of_the_shared_table_is_served(
    client: Client, shared_api: Path
) -> None:
    result = stored(client, gallery())
    table = json.loads((shared_api / "endpoints.json").read_text())
    names = {
        "{slideId}": "sl-0001",
        "{applicationId}": APP,
        "{accessionNumber}": "ACC%2F2025%200001",
        "{resultId}": str(result["id"]),
        "{level}/{col}_{row}[_{focalPlane}].{ext}": "0/0_0.jpg",
    }
    endpoints = table["callback"]["endpoints"]
    assert len(endpoints) > 15
    for endpoint in endpoints:
        path = endpoint["path"].lstrip("/")
        for name, value in names.items():
            path = path.replace(name, value)
        answer = client.http.request(endpoint["method"], path)
        # Empty bodies and missing sessions are refused, by a route that is there.
        assert answer.status_code != 405, path
        if answer.status_code == 404:
            assert "attachment" in answer.text, path


def test_the_singular_application_is_not_a_path(client: Client) -> None:
    assert client.get(f"application/{APP}").status_code == 404
    assert client.get(f"applications/{APP}").status_code == 200


def test_the_context_of_an_application_is_a_text_of_json_or_an_object() -> None:
    for as_object, wanted in ((False, '{"profile": "default"}'), (True, None)):
        with (
            PathologyServer(object_context=as_object) as server,
            Client(server) as client,
        ):
            context = client.get(f"applications/{APP}").json()["context"]
            assert context == (wanted or {"profile": "default"})


def test_a_primitive_of_one_item_stands_alone_before_version_1_6() -> None:
    with (
        PathologyServer(case_scenario(), api_version="1.5") as server,
        Client(server, declared="1.5") as client,
    ):
        content = stored(client)["data"]["result"]["content"]
        assert isinstance(content, dict)


def test_a_request_that_declares_no_version_is_refused(client: Client) -> None:
    del client.http.headers[VERSION_HEADER]
    answer = client.get("slides/sl-0001/info")
    assert answer.status_code == 400
    assert "major.minor" in answer.text


def test_a_client_that_declares_a_newer_version_is_noted() -> None:
    with (
        PathologyServer(case_scenario(), api_version="1.8") as server,
        Client(server, declared="1.10") as client,
    ):
        assert client.get("slides/sl-0001/info").status_code == 200
        assert "declares 1.10" in server.warnings[0]


# 2. Tokens.


def test_no_token_and_an_unknown_token_are_401(server: PathologyServer) -> None:
    for token in ("", "guessed"):
        with Client(server, token=token or "x") as client:
            if not token:
                del client.http.headers["Authorization"]
            assert client.get("slides/sl-0001/info").status_code == 401


def test_a_token_expires_by_the_servers_clock(server: PathologyServer) -> None:
    token = server.tokens.issue(APP, lifetime_s=60)
    with Client(server, token=token) as client:
        server.clock.advance(59)
        assert client.get("info").status_code == 200
        server.clock.advance(2)
        assert client.get("info").status_code == 401


def test_a_revoked_token_is_401_from_then_on(
    server: PathologyServer, client: Client
) -> None:
    assert client.get("info").status_code == 200
    server.tokens.revoke(client.token)
    assert client.get("info").status_code == 401


def test_a_token_of_another_application_is_403(server: PathologyServer) -> None:
    server.add_application(APP, {})
    with Client(server, application_id="other") as other:
        assert other.get(f"applications/{APP}/results/slide/sl-0001").status_code == 403
        assert other.get(f"applications/{APP}").status_code == 403


def test_the_token_endpoint_wants_name_password_and_permission(
    server: PathologyServer, client: Client
) -> None:
    def ask(user: str, password: str, grant: str = "client_credentials") -> int:
        return httpx.post(
            f"{server.url}/token",
            params={"applicationId": APP},
            auth=(user, password),
            data={"grant_type": grant},
        ).status_code

    server.users["visitor"] = "pw"
    assert ask(USER, "wrong") == 401
    assert ask("visitor", "pw") == 403
    assert ask(USER, PASSWORD, grant="password") == 400
    assert ask(USER, PASSWORD) == 200
    assert httpx.post(f"{server.url}/token").status_code == 401


def test_a_token_of_the_token_endpoint_opens_the_api(
    server: PathologyServer, client: Client
) -> None:
    told = httpx.post(
        f"{server.url}/token",
        params={"applicationId": APP},
        auth=(USER, PASSWORD),
        data={"grant_type": "client_credentials"},
    ).json()
    assert schema_problem("Token", told) is None
    with Client(server, token=told["access_token"]) as other:
        assert other.post(outline()).status_code == 201


# 8. The label.


def test_a_slide_without_a_label_answers_204(client: Client) -> None:
    assert client.get("slides/sl-0001/label").content[:2] == b"\xff\xd8"
    answer = client.get("slides/sl-portrait/label")
    assert (answer.status_code, answer.content) == (204, b"")


# 9. Patient data and the extended fields.


def test_patient_data_and_extended_fields_come_only_where_asked_for(
    client: Client,
) -> None:
    plain = client.get("slides/sl-0001/info").json()
    assert schema_problem("SlideInfoWithoutPhi", plain) is None
    assert "stationName" not in plain
    extended = client.get("slides/sl-0001/info?scope=extended").json()
    assert extended["stationName"] == "SCANNER-1"
    assert "accessionNumber" not in extended
    # A client of Sectra's own writes booleans in upper case.
    told = client.get("slides/sl-0001/info?scope=extended&includePHI=True").json()
    assert told["accessionNumber"] == CASE_ACCESSION
    assert schema_problem("SlideInfo", told) is None


def test_a_case_list_tells_patient_data_only_where_asked_for(client: Client) -> None:
    path = "requests/ACC%2F2025%200001/images/info"
    plain = client.get(path)
    assert schema_problem("CaseInfo", plain.json()) is None
    assert "lisSlideId" not in plain.text
    assert "lisSlideId" in client.get(f"{path}?includePHI=true").text
    # Both names of the issuer are in use.
    for name in ("accessionNumberIssuer", "accessionNumberIssuerId"):
        assert client.get(f"{path}?{name}=EXAMPLE-LAB").status_code == 200
        assert client.get(f"{path}?{name}=OTHER").status_code == 404


def test_asking_for_patient_data_is_on_record(
    server: PathologyServer, client: Client
) -> None:
    client.get("slides/sl-0001/info?includePHI=false")
    server.record.assert_no_phi_requested()
    for path in ("slides/sl-0001/info?includePHI=true", "slides/sl-0001/label"):
        client.get(path)
        with pytest.raises(AssertionError, match="patient data was requested"):
            server.record.assert_no_phi_requested()
        server.record = type(server.record)()


# Quality control, launch data.


def test_quality_control_is_written_with_the_version_that_was_read(
    client: Client,
) -> None:
    def put(version: str) -> int:
        body = {
            "applicationVersion": "1",
            "qualityControl": {"status": "Rejected", "versionId": version},
        }
        return client.http.put("slides/sl-0001/qualityControl", json=body).status_code

    held = client.get("slides/sl-0001/info").json()["qualityControl"]
    assert put(held["versionId"]) == 200
    assert put(held["versionId"]) == 409
    now = client.get("slides/sl-0001/info").json()["qualityControl"]
    assert now == {"status": "Rejected", "versionId": "2"}


def test_launch_data_is_opened_by_a_session_and_brings_a_token(
    server: PathologyServer, client: Client
) -> None:
    query = {
        "requestId": CASE_ACCESSION,
        "sessionToken": "user-session-0001",
        "appId": APP,
    }
    answer = httpx.get(f"{server.url}/launchdata", params=query)
    assert schema_problem("LaunchData", answer.json()) is None
    token = answer.json()["callbackInfo"]["token"]
    with Client(server, token=token) as other:
        assert other.get("slides/sl-0001/info").status_code == 200
    wrong = httpx.get(f"{server.url}/launchdata", params={**query, "sessionToken": "x"})
    assert wrong.status_code == 401
