"""Any number of varied tickets for load tests, put together from parts by a seeded chance. Never use them to measure quality."""

from __future__ import annotations

import random
from collections.abc import Iterator

from workshop_lib.triage.schema import CustomerTier, Ticket

_WHO = ("our design team", "a colleague in Lisbon", "the night shift", "one of our guests", "everybody in finance", "I",
        "a new starter", "our agency", "the board secretary", "two of forty people")  # fmt: skip
_WHAT = ("cannot open the dashboard", "was charged twice", "is asked for a code that never comes", "gets 429 from the API",
         "sees last week's numbers", "lost a column in the export", "wants dark mode for printing", "waits a minute for each board",
         "found an unknown session", "needs a quote in euros", "cannot find the archive", "would like to thank you")  # fmt: skip
_WHEN = ("since this morning", "since the update", "every Monday", "for the third time this month", "after the migration",
         "only on the phone", "as far as we can tell", "since we changed plans")  # fmt: skip
_SO = ("We can work around it for now.", "It holds up the whole department.", "No hurry.", "We have a deadline tonight.",
       "Is this known?", "Please advise.", "It is not urgent, just odd.", "Nobody can work.", "What would you suggest?")  # fmt: skip
_EXTRA = (
    "The request id ends in {n}.",
    "We have {n} seats.",
    "It took {n} seconds.",
    "Card {n} shows it best.",
    "Ticket {n} was similar.",
)


def generate(count: int, *, seed: int = 0) -> Iterator[Ticket]:
    """`count` tickets, one after the other (no list is built); the same seed gives the same ones. All texts differ by number."""
    chance = random.Random(seed)
    for i in range(count):
        what = chance.choice(_WHAT)
        parts = [f"{chance.choice(_WHO)} {what} {chance.choice(_WHEN)}.".capitalize()]
        parts += chance.sample(_SO, k=chance.randint(0, 2))
        parts += [text.format(n=chance.randint(2, 9_999)) for text in chance.sample(_EXTRA, k=chance.randint(0, 3))]
        yield Ticket(
            id=f"load-{seed}-{i:06d}",
            subject=what.capitalize() if chance.random() < 0.7 else "",
            body=" ".join([*parts, f"Reference {i}."]),
            customer_tier=chance.choice(list(CustomerTier)),
        )
