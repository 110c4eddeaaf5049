"""The program, run as a user would: once with its own process and endpoint, else in this process, at the tests' endpoint (`here`)."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

PROGRAM = [sys.executable, "-m", "workshop_lib"]


def run(*arguments, **environ):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "WORKSHOP_"))}
    env |= {"WORKSHOP_TIME_SCALE": "0", "COLUMNS": "100", **environ}
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, env=env, timeout=170, encoding="utf-8", check=False
    )


def test_the_demo_prints_the_comparison():
    done = run("demo", "--limit", "6")
    assert done.returncode == 0, done.stderr
    for words in ("Local door", "strong-only", "cheap-only", "cascade", "USD per", "went", "intervals"):
        assert words in done.stdout


def test_the_doctor_finds_nothing_wrong_at_the_local_door():
    done = run("doctor", "--json")
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert {f["status"] for f in findings} == {"OK", "SKIP"}


def test_the_doctor_prints_the_policy_and_nothing_else(here):
    done = here("doctor", "--policy")
    assert done.returncode == 0, done.stderr
    assert {s["Effect"] for s in json.loads(done.stdout)["Statement"]} == {"Allow"}


def test_the_doctor_goes_through_the_list_for_production(here):
    done = here("doctor", "--production", "--json", BEDROCK_GUARDRAIL_ID="workshop", BEDROCK_GUARDRAIL_VERSION="DRAFT")
    findings = {f["name"]: f for f in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 1
    assert findings["guardrail"]["status"] == "FAIL"
    assert findings["logging"]["status"] == "ASK"


def test_one_ticket_is_one_json_line(here):
    done = here(
        "triage", "--subject", "Charged twice", "--body", "My card was charged twice in May, please refund one."
    )
    row = json.loads(done.stdout)
    assert row["decision"]["category"] == "billing"
    assert row["cost_usd"] > 0


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (["triage"], {}, "both empty"),
        (["triage", "--subject", "x", "--strategy", "guess"], {}, "choose from"),
        (["triage", "--file", "no-such.jsonl"], {}, "cannot be read"),
        (["doctor"], {"WORKSHOP_MODE": "offline"}, "WORKSHOP_MODE"),
        (["demo"], {"WORKSHOP_PAIR": "cheap-dear"}, "nemotron-sonnet"),
        (["demo", "--limit", "0"], {}, "limit"),
    ],
    ids=["empty ticket", "unknown strategy", "missing file", "bad mode", "bad pair", "bad limit"],
)
def test_a_mistake_is_one_message_and_no_traceback(here, arguments, environ, said):
    done = here(*arguments, **environ)
    assert done.returncode != 0
    assert said in re.sub(r"[\s│]+", " ", done.stdout + done.stderr)
    assert "Traceback" not in done.stderr


def test_tickets_for_load_go_to_standard_output(here):
    rows = [json.loads(line) for line in here("tickets", "25", "--seed", "7").stdout.splitlines()]
    assert len({row["body"] for row in rows}) == 25


def test_learners_copies_are_fresh(here):
    assert here("build-notebooks", "--check").returncode == 0


def test_catching_up_names_the_notebook(here):
    assert "02_let_the_cheap_model_go_first.ipynb" in here("catch-up", "02").stdout


@pytest.fixture
def some_tickets(tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_text("".join(f'{{"id": "L-{i}", "subject": "", "body": "Refund invoice {i}"}}\n' for i in range(25)))
    return file


def test_bulk_writes_every_row_once_and_a_second_run_pays_for_nothing(here, some_tickets, tmp_path):
    out = tmp_path / "rows.ndjson"
    first = here("bulk", str(some_tickets), "--out", str(out), "--workers", "4")
    lines = out.read_text(encoding="utf-8").splitlines()
    again = here("bulk", str(some_tickets), "--out", str(out))
    assert (first.returncode, again.returncode) == (0, 0)
    assert {json.loads(line)["ticket_id"] for line in lines} == {f"L-{i}" for i in range(25)}
    assert out.read_text(encoding="utf-8").splitlines() == lines
    assert "25 were done already" in " ".join(again.stderr.split())


def test_bulk_without_out_gives_rows_as_lines_on_standard_output(here, some_tickets, tmp_path):
    done = here("bulk", str(some_tickets), "--limit", "3", "--store", str(tmp_path / "s.db"))
    assert {json.loads(line)["ticket_id"] for line in done.stdout.splitlines()} == {"L-0", "L-1", "L-2"}


def test_bulk_says_with_its_exit_code_that_the_budget_ended_it(here, some_tickets):
    done = here("bulk", str(some_tickets), "--budget-usd", "0.001")
    assert done.returncode == 3
    assert "budget is used up" in " ".join(done.stderr.split())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_an_interrupted_bulk_run_says_how_to_go_on_and_goes_on(here, tmp_path):
    file, out = tmp_path / "t.jsonl", tmp_path / "rows.ndjson"
    file.write_text(here("tickets", "60").stdout, encoding="utf-8")
    command = [*PROGRAM, "bulk", str(file), "--out", str(out), "--workers", "2"]
    slow = {**os.environ, "WORKSHOP_TIME_SCALE": "0.1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=slow)
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "t.run.db").exists():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "goes on from there" in " ".join(said.split())
    assert here(*command[len(PROGRAM) :]).returncode == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len([r for r in rows if r["final"]]) == 60
    assert len({(r["ticket_id"], r["tier"]) for r in rows}) == len(rows)


def test_the_service_refuses_to_listen_to_the_world_without_a_token(here):
    done = here("api", "--host", "0.0.0.0")
    assert done.returncode == 1
    assert "WORKSHOP_API_TOKEN" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_serve_answers_until_it_is_interrupted():
    process = subprocess.Popen([*PROGRAM, "serve", "--port", "0"], stdout=subprocess.PIPE, text=True, encoding="utf-8")
    try:
        assert select.select([process.stdout], [], [], 60)[0], "no word of the server within 60 s"
        url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())[0]
        with urllib.request.urlopen(f"{url}/_local/health", timeout=10) as response:
            assert json.load(response)["status"] == "ok"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()  # one that is left over would keep the tests' own output open
        process.stdout.close()


# bakeoff, label


def test_a_dry_run_of_all_strategies_makes_no_call_and_prints_the_tables(here):
    done = here("bakeoff", "--dry-run", "--all")
    assert done.returncode == 0, done.stderr
    for words in ("112 tickets of 56", "oracle", "three-tier", "random-50%", "joint agreement", "sent up"):
        assert words in done.stdout


def test_a_dry_run_as_json_is_one_object_with_intervals(here):
    told = json.loads(here("bakeoff", "--dry-run", "--json", "--split", "workshop", "--strategy", "random-30%").stdout)
    assert list(told["strategies"]) == ["random-30%"]
    share = told["strategies"]["random-30%"]["shares"]["joint"]
    assert {"value", "low", "high", "n", "families", "distinct_texts"} == set(share)
    assert told["provenance"]["door"]["mode"] == "local"


def test_a_dry_run_of_fewer_tickets_says_how_many(here):
    told = json.loads(here("bakeoff", "--dry-run", "--json", "--limit", "7").stdout)
    assert told["n"] == 7


def test_the_locked_test_split_needs_the_word_final(here):
    refused = here("bakeoff", "--dry-run", "--split", "test")
    assert refused.returncode == 1
    assert "--final" in refused.stderr + refused.stdout
    final = here("bakeoff", "--dry-run", "--split", "test", "--final")
    assert "FINAL: the locked test split" in final.stdout


def test_a_bakeoff_asks_keeps_and_replays(here, tmp_path):
    made = here("bakeoff", "--split", "workshop", "--limit", "4", "--store", str(tmp_path / "s"), "--json", "--label",
               "--save", str(tmp_path / "run.jsonl"), "--csv", str(tmp_path / "t.csv"), "--report", str(tmp_path / "r.html"))  # fmt: skip
    told = json.loads(made.stdout)
    assert told["judge"]["category"]["value"] == 1
    assert (tmp_path / "t.csv").read_text(encoding="utf-8").startswith("strategy,")
    assert "<html" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert len((tmp_path / "run.jsonl").read_text(encoding="utf-8").splitlines()) == 1 + 3 * 4


def test_a_replay_at_the_other_door_names_it(here):
    done = here("bakeoff", "--dry-run", "--recorded", "data/recorded/local-workshop.jsonl", "--split", "workshop",
               WORKSHOP_MODE="live", AWS_REGION="us-west-2")  # fmt: skip
    assert done.returncode == 1
    assert "door" in done.stderr + done.stdout


def test_an_unknown_strategy_names_the_known_ones(here):
    done = here("bakeoff", "--dry-run", "--strategy", "guess")
    assert done.returncode != 0
    assert "strong-only" in done.stderr + done.stdout


def test_labels_of_the_judge_are_written_and_compared_with_the_key(here, tmp_path):
    done = here("label", "--split", "workshop", "--limit", "5", "--out", str(tmp_path / "l.jsonl"), "--json")
    assert json.loads(done.stdout)["n"] == 5
    assert len((tmp_path / "l.jsonl").read_text(encoding="utf-8").splitlines()) == 5
