"""The HTTP service, over real HTTP: refused before anything is paid for, answered as it happens, stopped when nobody listens."""

import http.client
import json
import socket
import threading
import time

import pytest
import uvicorn

from workshop_lib import ConfigurationError, Settings, Workshop, load_tickets
from workshop_lib.bulk import Row
from workshop_lib.local import Fault
from workshop_lib.service import MAX_BODY, MAX_TICKETS, check_address, create_app

TICKETS = [t.model_dump(mode="json") for t in load_tickets("workshop")]
JSON = {"content-type": "application/json"}


@pytest.fixture
def serve(bedrock, catalogue, endpoint):
    """Start the service over the shared endpoint; gives its port."""
    servers = []

    def start(**options):
        workshop = Workshop(Settings(endpoint_url=endpoint.url, workers=4), catalogue, bedrock)
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(create_app(workshop, **options), log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            assert thread.is_alive(), "the service has not started"
            time.sleep(0.01)
        return listener.getsockname()[1]

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(5)


@pytest.fixture
def port(serve):
    return serve()


def post(port, path, body, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, raw, {**JSON, **headers})
    return connection.getresponse()


def answer(port, path, body, **headers):
    response = post(port, path, body, **headers)
    return response.status, json.loads(response.read())


def test_a_ticket_gets_the_strong_models_decision_and_its_bill(port, endpoint):
    status, said = answer(port, "/api/triage", TICKETS[0])
    assert status == 200
    assert said["decision"]["category"]
    assert said["cost_usd"] == pytest.approx(endpoint.journal.cost_usd)
    assert "sonnet" in said["model"]


def test_a_model_without_an_answer_is_a_502_that_says_what_was_paid(port, endpoint):
    endpoint.faults.add(Fault("invalid_output"))
    status, said = answer(port, "/api/triage", TICKETS[0])
    assert status == 502
    assert "no JSON" in said["error"]
    assert said["cost_usd"] == pytest.approx(endpoint.journal.cost_usd)


def events_of(response):
    found = []
    for block in response.read().decode().replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def test_the_cascade_tells_each_step_in_order(port):
    urgent = {"id": "T-1", "subject": "Everything down", "body": "Nobody of our 400 people can open any board since 9."}
    response = post(port, "/api/triage/cascade", urgent)
    assert response.headers["content-type"].startswith("text/event-stream")
    found = events_of(response)
    assert [kind for kind, _ in found] == [
        "tier-started", "tier-finished", "escalated", "tier-started", "tier-finished", "finished",
    ]  # fmt: skip
    assert found[2][1]["reasons"]
    assert found[-1][1]["decision"]["needs_human"] is True
    assert {data["ticket_id"] for _, data in found} == {"T-1"}


def test_a_cascade_that_fails_ends_in_failed(port, endpoint):
    endpoint.faults.add(Fault("AccessDeniedException"))
    kind, data = events_of(post(port, "/api/triage/cascade", TICKETS[0]))[-1]
    assert (kind, data["error"]["type"]) == ("failed", "AccessDenied")


def test_bulk_gives_a_valid_row_a_line_and_a_final_one_for_every_ticket(port, endpoint):
    response = post(port, "/api/triage/bulk", {"tickets": TICKETS})
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.headers["x-accel-buffering"] == "no"
    rows = [Row.model_validate_json(line) for line in response.read().splitlines()]
    assert sorted(r.ticket_id for r in rows if r.final) == sorted(t["id"] for t in TICKETS)
    assert sum(r.cost_usd for r in rows) == pytest.approx(endpoint.journal.cost_usd)


def test_bulk_rows_are_sent_as_they_come(port, endpoint):
    endpoint.faults.add(Fault("slow", at=frozenset({5}), delay_ms=3_000))
    endpoint.time_scale = 1.0
    response = post(port, "/api/triage/bulk", {"tickets": TICKETS[:6]})
    response.readline()
    answered = endpoint.journal.calls
    response.read()
    assert answered < endpoint.journal.calls


def test_bulk_keeps_to_its_budget(port, endpoint):
    rows = post(port, "/api/triage/bulk", {"tickets": TICKETS, "budget_usd": 0.06}).read().splitlines()
    assert rows
    assert endpoint.journal.cost_usd <= 0.06


@pytest.mark.parametrize("path", ["/api/triage/cascade", "/api/triage/bulk"])
def test_a_client_that_leaves_is_not_paid_for_further(port, endpoint, path):
    endpoint.faults.add(Fault("slow", delay_ms=300))
    endpoint.time_scale = 1.0
    body = {"tickets": TICKETS} if path.endswith("bulk") else TICKETS[0]
    raw = json.dumps(body).encode()
    client = socket.create_connection(("127.0.0.1", port))
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
    client.sendall(head.encode() + raw)
    client.recv(10)
    client.close()
    time.sleep(3)
    after = endpoint.journal.calls
    time.sleep(2)
    assert endpoint.journal.calls == after
    assert after < 12


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/api/triage", b"{", "JSON"),
        ("/api/triage", [], "body"),
        ("/api/triage", {"id": "T-1"}, "both empty"),
        ("/api/triage/cascade", {"id": "T-1", "body": 5}, "body: "),
        ("/api/triage/cascade", {"id": "T-1", "body": "x", "customer_tier": "gold"}, "customer_tier"),
        ("/api/triage/bulk", {"tickets": []}, "tickets"),
        ("/api/triage/bulk", {"tickets": [TICKETS[0], {"id": "T-bad", "body": ""}]}, "tickets.1 (id 'T-bad')"),
        ("/api/triage/bulk", {"tickets": [TICKETS[0], TICKETS[0]]}, "occur twice"),
        ("/api/triage/bulk", {"tickets": [{**TICKETS[0], "id": str(i)} for i in range(MAX_TICKETS + 1)]}, "tickets"),
        ("/api/triage/bulk", {"tickets": TICKETS[:1], "budget_usd": -1}, "budget_usd"),
    ],
    ids=["no JSON", "a list", "an empty ticket", "a number as text", "an unknown plan", "no tickets", "one bad ticket",
         "an id twice", "too many", "a budget below 0"],
)  # fmt: skip
def test_a_bad_request_is_a_400_that_names_the_item_and_calls_nothing(port, endpoint, path, body, said):
    status, failure = answer(port, path, body)
    assert status == 400
    assert said in json.dumps(failure["problems"], ensure_ascii=False).replace('\\"', '"')
    assert endpoint.journal.calls == 0


def test_a_request_that_is_too_long_is_refused(port, endpoint):
    status, said = answer(port, "/api/triage", b'{"body": "' + b"x" * MAX_BODY + b'"}')
    assert (status, endpoint.journal.calls) == (413, 0)
    assert "fewer" in said["error"]


def test_a_request_of_another_kind_of_content_is_refused(port, endpoint):
    status, _ = answer(port, "/api/triage", TICKETS[0], **{"content-type": "text/plain"})
    assert (status, endpoint.journal.calls) == (400, 0)


def test_a_request_by_another_name_is_refused(port, endpoint):
    response = post(port, "/api/triage", TICKETS[0], host="evil.example")
    assert (response.status, endpoint.journal.calls) == (400, 0)


def test_with_a_token_nobody_is_answered_without_it(serve, endpoint):
    port = serve(token="a-long-secret")
    assert answer(port, "/api/triage", TICKETS[0])[0] == 401
    assert answer(port, "/api/triage", TICKETS[0], authorization="Bearer another")[0] == 401
    assert endpoint.journal.calls == 0
    assert answer(port, "/api/triage", TICKETS[0], authorization="Bearer a-long-secret")[0] == 200


@pytest.mark.parametrize(("host", "token", "allowed"), [
    ("127.0.0.1", None, True), ("localhost", None, True), ("::1", None, True), ("127.8.8.8", None, True),
    ("0.0.0.0", None, False), ("10.0.0.5", None, False), ("::", None, False), ("example.org", None, False),
    ("0.0.0.0", "secret", True),
])  # fmt: skip
def test_it_listens_beyond_this_machine_only_with_a_token(host, token, allowed):
    if allowed:
        check_address(host, token)
    else:
        with pytest.raises(ConfigurationError, match="no token"):
            check_address(host, token)


def test_its_description_is_published(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/openapi.json")
    paths = json.loads(connection.getresponse().read())["paths"]
    assert set(paths) == {"/api/triage", "/api/triage/cascade", "/api/triage/bulk"}
    assert "application/x-ndjson" in paths["/api/triage/bulk"]["post"]["responses"]["200"]["content"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/api/triage", 405), ("POST", "/api/nothing", 404)])
def test_what_is_not_offered_says_so_in_the_same_form(port, method, path, status):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, b"{}", JSON)
    response = connection.getresponse()
    assert response.status == status
    assert json.loads(response.read())["error"]
