"""Tickets for load: any number, seeded, all different."""

from itertools import islice

from workshop_lib.triage.generator import generate


def test_the_same_seed_makes_the_same_tickets():
    assert list(generate(50, seed=3)) == list(generate(50, seed=3))
    assert list(generate(50, seed=3)) != list(generate(50, seed=4))


def test_no_two_tickets_are_alike():
    made = list(generate(2_000))
    assert len({t.body for t in made}) == len({t.id for t in made}) == 2_000


def test_tickets_are_made_one_after_the_other():
    assert len(list(islice(generate(10**12), 3))) == 3
