"""Lab 03's checks: each way of getting a bulk runner wrong is told apart, and the right ones pass."""

import queue
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

import pytest

from workshop_lib.bulk import final_row, first_row
from workshop_lib.lessons import check, hint, lab03, solution


def rows_of(cascade, ticket):
    paid = 0.0
    for event in cascade.stream(ticket):
        if event.attempt is not None:
            attempt = event.attempt
        elif event.kind == "escalated":
            row = first_row(event.item_id, attempt, event.reasons, paid_usd=paid)
            paid += row.cost_usd
            yield row
        elif event.outcome is not None:
            yield final_row(event.outcome, paid_usd=paid)


def in_one_row(cascade, ticket):
    yield final_row(cascade.run(ticket), paid_usd=0.0)


def all_at_the_end(cascade, ticket):
    return list(rows_of(cascade, ticket))


def safely(cascade, ticket):
    try:
        yield from rows_of(cascade, ticket)
    except Exception as error:
        yield lab03.error_row(ticket, error)


def run_with(cascade, tickets, workers, *, of=safely, spare=0, tries=1):
    """A right runner, and with other settings a wrong one: `spare` workers too many, or tickets tried twice."""
    waiting, rows = queue.Queue(), queue.Queue()
    for ticket in tickets:
        waiting.put(ticket)

    def work():
        while True:
            try:
                ticket = waiting.get_nowait()
            except queue.Empty:
                break
            for _ in range(tries):
                found = list(of(cascade, ticket)) if tries > 1 else of(cascade, ticket)
            for row in found:
                rows.put(row)
        rows.put(None)

    for _ in range(workers + spare):
        threading.Thread(target=work, daemon=True).start()
    running = workers + spare
    while running:
        row = rows.get(timeout=60)
        running -= row is None
        if row is not None:
            yield row


def one_by_one(cascade, tickets, workers):
    for ticket in tickets:
        yield from safely(cascade, ticket)


def in_order(cascade, tickets, workers):
    with ThreadPoolExecutor(workers) as pool:
        for rows in pool.map(lambda t: list(safely(cascade, t)), tickets):
            yield from rows


def unbounded(cascade, tickets, workers):
    return run_with(cascade, tickets, workers, spare=20)


def pays_twice(cascade, tickets, workers):
    return run_with(cascade, tickets, workers, tries=2)


def collects(cascade, tickets, workers):
    return list(run_with(cascade, tickets, workers))


def loses_the_poisoned(cascade, tickets, workers):
    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(lambda t=t: list(rows_of(cascade, t))) for t in tickets]
        for future in as_completed(running):
            if future.exception() is None:
                yield from future.result()


def only_decisions(cascade, tickets, workers):
    return (row for row in run_with(cascade, tickets, workers) if row.decision is not None)


def finished(text, *, careful=True):
    import json

    done = set()
    for line in text.splitlines():
        if careful and not line.endswith("}"):
            continue
        row = json.loads(line)
        if row["final"] or not careful:
            done.add(row["ticket_id"])
    return done


def has_begun(text):
    return {line.split('"')[3] for line in text.splitlines()}


@pytest.mark.parametrize(
    ("number", "answer", "said"),
    [
        ("3.1", rows_of, "Correct"),
        ("3.1", in_one_row, "only after the strong call"),
        ("3.1", all_at_the_end, "only after the strong call"),
        ("3.1", lambda cascade, ticket: (), "Not attempted"),
        ("3.1", lambda cascade, ticket: None, "Not attempted"),
        ("3.2", run_with, "Correct"),
        ("3.2", one_by_one, "Not yet"),
        ("3.2", in_order, "holds up the rows"),
        ("3.2", unbounded, "calls under way at once"),
        ("3.2", pays_twice, "retries have one owner"),
        ("3.2", collects, "do not collect them"),
        ("3.2", loses_the_poisoned, "was None"),
        ("3.2", only_decisions, "have no final row"),
        ("3.2", lambda cascade, tickets, workers: (), "Not attempted"),
        ("3.3", finished, "Correct"),
        ("3.3", has_begun, "Not yet"),
        ("3.3", lambda text: finished(text, careful=False), "Not yet"),
        ("3.3", lambda text: None, "Not attempted"),
        ("3.4", lambda spent, in_flight, most, budget: spent + in_flight + most <= budget, "Correct"),
        ("3.4", lambda spent, in_flight, most, budget: spent + most <= budget, "in flight"),
        ("3.4", lambda spent, in_flight, most, budget: spent < budget, "Not yet"),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_a_check_tells_what_is_missing(number, answer, said):
    assert said in repr(check(number, answer))


def test_a_runner_that_never_ends_is_told_so_and_does_not_hang(monkeypatch):
    monkeypatch.setattr(lab03, "PATIENCE_S", 0.5)

    def never_ends(cascade, tickets, workers):
        yield from one_by_one(cascade, tickets[:1], workers)
        threading.Event().wait(30)

    assert "did not end" in repr(check("3.2", never_ends))


@pytest.mark.parametrize("number", ["3.1", "3.2", "3.3", "3.4"])
def test_every_exercise_has_hints_and_a_solution(number):
    assert "Hint 1" in repr(hint(number))
    assert "def " in repr(solution(number))
