"""What people say about tickets: who saw which text by which rubric and decided what, kept from the first click, and one label a ticket from it.

reviews = ReviewStore(Path("review.db"), tickets)
reviews.save(ticket.id, Verdict(Category.BILLING, Priority.P2, needs_human=True), reviewer="Ada")
labels = reviews.labels()

A review is blind: nothing in here knows what a model decided, and nobody is shown what another reviewer said before both are done.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.bulk.intake import identify
from workshop_lib.bulk.store import StoreError, StoreMismatch
from workshop_lib.triage.datasets import Label
from workshop_lib.triage.rubric import load_rubric
from workshop_lib.triage.schema import Category, Priority, Ticket
from workshop_lib.triage.task import TRIAGE, Task

FIELDS = ("category", "priority", "needs_human")
ADJUDICATION = "adjudication"
_TABLE = """
CREATE TABLE IF NOT EXISTS reviews (
    ticket_id TEXT NOT NULL, seat TEXT NOT NULL, revision INTEGER NOT NULL, review TEXT NOT NULL,
    PRIMARY KEY (ticket_id, seat, revision)) WITHOUT ROWID;
"""  # seat: a reviewer's name behind "by:", or the one place of who settles a disagreement


_UNREADABLE = (sqlite3.Error, ValueError, TypeError, KeyError)
"""What reading reviews raises: of the file, or of a row in it that is damaged."""


class ReviewsUnsaved(StoreError):
    """Reviews could not be written. They are in `ReviewStore.unsaved`, and the next `save` or `flush` tries again."""

    default_advice = (
        "Keep this session open. Close what holds the file, or make room; then save again or call flush(). "
        "export_unsaved(path) writes them to another file."
    )


@dataclass(frozen=True)
class Verdict:
    """What a person decides about a ticket.

    Raises:
        ValueError: P0 or P1 without needs_human: an urgent ticket always goes to a person.
    """

    category: Category
    priority: Priority
    needs_human: bool
    notes: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "category", Category(self.category))
        object.__setattr__(self, "priority", Priority(self.priority))
        if self.priority.is_urgent and not self.needs_human:
            raise ValueError(f"priority {self.priority} implies needs_human")


@dataclass(frozen=True)
class Review:
    """A verdict, and where it comes from."""

    ticket_id: str
    reviewer: str
    verdict: Verdict
    digest: str
    """Of the ticket's text that was shown."""
    rubric: str
    """Version of the rules that were at hand."""
    reviewed_at: str
    """UTC, ISO 8601."""
    revision: int = 1
    """1, and one more each time this reviewer changed it. Earlier ones stay in the file."""
    settles: bool = False
    """Whether it settles a disagreement of two reviews, and was made in sight of them."""

    @classmethod
    def from_json(cls, text: str) -> Review:
        """The opposite of `json.dumps(asdict(review))`."""
        found = json.loads(text)
        return cls(**{**found, "verdict": Verdict(**found["verdict"])})


@dataclass(frozen=True)
class Saved:
    """What saving came to."""

    review: Review
    replaced: Review | None = None
    """An entry of the same reviewer that this window had not seen: it was replaced, and stays in the file as an earlier revision."""

    @property
    def note(self) -> str:
        """What to tell the reviewer; "" where nothing is unusual."""
        if self.replaced is None:
            return ""
        then = self.replaced
        return (
            f"{then.reviewer} had saved {then.ticket_id} elsewhere at {then.reviewed_at} as {shown(then.verdict)}: this entry "
            f"takes its place (revision {self.review.revision})."
        )


class ReviewStore:
    """Reviews of some tickets in one SQLite file, a commit each. Several people may write to it at the same time, each in a
    process of their own on one machine (WAL does not work over a network drive). Safe to share between threads.
    """

    def __init__(
        self,
        path: Path | str,
        tickets: Iterable[Ticket],
        *,
        task: Task[Any] = TRIAGE,
        rubric: str | None = None,
        set_aside: bool = False,
        busy_timeout_s: float = 5.0,
    ) -> None:
        """
        Args:
            path: the file; it is made if it does not exist.
            tickets: what is to be reviewed, in this order.
            task: says which text of a ticket counts.
            rubric: version of the rules; None: of `load_rubric`.
            set_aside: leave out reviews of another text of the same ticket, or by other rules, in place of an error. They stay
                in the file, and the tickets are to be reviewed again.
            busy_timeout_s: how long to wait for another program that holds the file.

        Raises:
            StoreMismatch: a ticket's text, or the rubric, is not the one that its reviews were made by.
            ConfigurationError: two tickets have one id.
            StoreError: the file cannot be opened, it or a review in it is damaged, or it is something else.
        """
        self.path = Path(path)
        self.tickets: dict[str, Ticket] = {}
        self.rubric = load_rubric().version if rubric is None else rubric
        self.unsaved: list[Review] = []
        """Reviews that could not be written yet: they count, and are lost only with this process."""
        self._digests: dict[str, str] = {}
        self._lock = threading.RLock()
        for ticket in tickets:
            if ticket.id in self.tickets:
                raise ConfigurationError(f"Two tickets have the id {ticket.id}.", advice="Give each an id of its own.")
            self.tickets[ticket.id] = ticket
            self._digests[ticket.id] = identify(task, ticket)[1]
        if not self.path.parent.is_dir():
            raise StoreError(f"There is no folder {self.path.parent}.", advice="Make it, or choose another path.")
        try:
            self._file = sqlite3.connect(
                self.path, timeout=busy_timeout_s, check_same_thread=False, isolation_level=None
            )
        except sqlite3.Error as error:
            raise self._broken(error) from error
        try:
            tables = {name for (name,) in self._file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if tables and "reviews" not in tables:
                raise sqlite3.DatabaseError(f"it holds {', '.join(sorted(tables))}")
            self._file.execute("PRAGMA journal_mode=WAL")  # stays with the file: not before it is known to be ours
            self._file.execute("PRAGMA synchronous=FULL")  # people's minutes: a power cut costs none
            self._file.executescript(_TABLE)
            strange = [] if set_aside else self._strange()
        except _UNREADABLE as error:
            self.close()
            raise self._broken(error) from error
        if strange:
            self.close()
            raise StoreMismatch(
                f"{self.path.name}: {len(strange)} tickets were reviewed with another text or by other rules: {_some(strange)}.",
                advice="Put back the text, or give the changed tickets new ids; or open it with set_aside=True to review them again.",
            )

    def save(
        self, ticket_id: str, verdict: Verdict, *, reviewer: str, seen: int | None = None, settles: bool = False
    ) -> Saved:
        """Keep a review, for good when this returns.

        Args:
            ticket_id: one of `tickets`.
            verdict: what was decided.
            reviewer: who decided.
            seen: the revision that this window has shown, 0 for none; None: whatever is there. If another window of the same
                reviewer has saved since, this one still wins, and `Saved.replaced` says over what.
            settles: it settles a disagreement; one a ticket.

        Raises:
            ConfigurationError: there is no such ticket, or no name.
            ReviewsUnsaved: it could not be written; it is kept in `unsaved`, with all before it.
        """
        if ticket_id not in self.tickets:
            raise ConfigurationError(
                f"There is no ticket {ticket_id!r} among the {len(self.tickets)} of this review.",
                advice="Open the store with the tickets that are to be reviewed; their ids are in store.tickets.",
            )
        if not reviewer.strip():
            raise ConfigurationError("A review needs its reviewer's name.", advice="Enter a name first.")
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        made = Review(
            ticket_id, reviewer.strip(), verdict, self._digests[ticket_id], self.rubric, now, 0, settles
        )  # fmt: skip
        with self._lock:
            self.unsaved = [r for r in self.unsaved if (r.ticket_id, _seat(r)) != (ticket_id, _seat(made))]
            self.unsaved.append(made)
            saved, before = self.flush()[-1]
        unseen = before is not None and seen is not None and before.revision != seen
        return Saved(saved, before if unseen else None)

    def flush(self) -> list[tuple[Review, Review | None]]:
        """Write what is in `unsaved`.

        Returns:
            Each written review with the one that it takes the place of.

        Raises:
            ReviewsUnsaved: it still cannot be written.
        """
        written: list[tuple[Review, Review | None]] = []
        with self._lock:
            try:
                self._file.execute("BEGIN IMMEDIATE")  # nobody else writes between looking and writing
                for review in self.unsaved:
                    place = (review.ticket_id, _seat(review))
                    newest = (
                        "SELECT review FROM reviews WHERE ticket_id = ? AND seat = ? ORDER BY revision DESC LIMIT 1"
                    )
                    found = self._file.execute(newest, place).fetchone()
                    before = None if found is None else _parsed(*place, found[0])
                    made = replace(review, revision=1 if before is None else before.revision + 1)
                    row = (*place, made.revision, json.dumps(asdict(made)))
                    self._file.execute("INSERT INTO reviews VALUES (?, ?, ?, ?)", row)
                    written.append((made, before))
                self._file.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(sqlite3.Error):
                    self._file.execute("ROLLBACK")  # whatever happened: else nobody could write any more
                if not isinstance(error, _UNREADABLE):
                    raise
                raise ReviewsUnsaved(
                    f"{self.path.name} cannot be written: {error}. {len(self.unsaved)} reviews are kept in memory: "
                    f"{_some([r.ticket_id for r in self.unsaved])}.",
                    advice=""
                    if isinstance(error, sqlite3.Error)
                    else f"Keep this session open. {self._broken(error).advice}",
                ) from error
            self.unsaved = []
        return written

    def export_unsaved(self, path: Path | str) -> int:
        """Write what is in `unsaved` to another file, a JSON object a line; how many there are."""
        Path(path).write_text("".join(json.dumps(asdict(r)) + "\n" for r in self.unsaved), encoding="utf-8")
        return len(self.unsaved)

    def reviews(self, *, reviewer: str | None = None, settling: bool = False) -> list[Review]:
        """The newest revision of each, in the tickets' order; unsaved ones included.

        Args:
            reviewer: only this one's; None: everybody's.
            settling: those that settle disagreements, in place of the blind ones.

        Raises:
            StoreError: the file cannot be read.
        """
        with self._lock:
            try:
                found = self._all()
            except _UNREADABLE as error:
                raise self._broken(error) from error
            newest = {(r.ticket_id, _seat(r)): r for r in [*found, *self.unsaved] if self._counts(r)}
        place = {ticket_id: i for i, ticket_id in enumerate(self.tickets)}
        wanted = [r for r in newest.values() if r.settles == settling and reviewer in (None, r.reviewer)]
        return sorted(wanted, key=lambda r: (place[r.ticket_id], r.reviewer))

    def next_unreviewed(self, reviewer: str, after: str | None = None) -> Ticket | None:
        """The first ticket that this reviewer has not decided; None: all are done.

        Args:
            reviewer: whose turn it is.
            after: begin behind this ticket, and go on from the front.
        """
        done, ids = {r.ticket_id for r in self.reviews(reviewer=reviewer)}, list(self.tickets)
        start = 0 if after is None else ids.index(after) + 1
        return next((self.tickets[i] for i in ids[start:] + ids[:start] if i not in done), None)

    def disagreements(self) -> dict[str, list[Review]]:
        """The reviews of each ticket on which reviewers differ and that nobody has settled. For who settles them, not for reviewers."""
        settled = {r.ticket_id for r in self.reviews(settling=True)}
        return {
            ticket_id: given
            for ticket_id, given in self._by_ticket().items()
            if len({_said(r.verdict) for r in given}) > 1 and ticket_id not in settled
        }

    def labels(self, known: Mapping[str, Label] | None = None) -> dict[str, Label]:
        """What people decided, as an answer key: the settled verdict, or the one that all reviewers of a ticket gave.

        A ticket whose reviewers differ has no label until somebody settles it.

        Args:
            known: labels of the same tickets, to take family, split and style from. A ticket that is not in it belongs to the
                calibration split, and to a family with the tickets of the same text.
        """
        open_ones, settled = self.disagreements(), {r.ticket_id: r for r in self.reviews(settling=True)}
        found: dict[str, Label] = {}
        for ticket_id, given in self._by_ticket().items():
            if ticket_id in open_ones:
                continue
            final = settled.get(ticket_id, given[0])
            who = final.verdict
            notes = who.notes or "; ".join(dict.fromkeys(r.verdict.notes for r in given if r.verdict.notes))
            base = (known or {}).get(ticket_id)
            found[ticket_id] = (
                Label(who.category, who.priority, who.needs_human, final.digest, "calibration", "", notes)
                if base is None
                else replace(
                    base, category=who.category, priority=who.priority, needs_human=who.needs_human, note=notes
                )
            )
        return found

    def close(self) -> None:
        """Let go of the file."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._file.close()

    def __enter__(self) -> ReviewStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _by_ticket(self) -> dict[str, list[Review]]:
        grouped: dict[str, list[Review]] = {}
        for review in self.reviews():
            grouped.setdefault(review.ticket_id, []).append(review)
        return grouped

    def _counts(self, review: Review) -> bool:
        return self._digests.get(review.ticket_id) == review.digest and review.rubric == self.rubric

    def _strange(self) -> list[str]:
        return sorted({r.ticket_id for r in self._all() if r.ticket_id in self.tickets and not self._counts(r)})

    def _all(self) -> list[Review]:
        rows = self._file.execute("SELECT ticket_id, seat, review FROM reviews ORDER BY revision").fetchall()
        return [_parsed(*row) for row in rows]

    def _broken(self, error: Exception) -> StoreError:
        said = f"{type(error).__name__}: {error}"
        if "locked" in said:
            return StoreError(f"{self.path} is held by another program.", advice="Close it there, then try again.")
        if not isinstance(error, sqlite3.Error):
            return StoreError(
                f"{self.path} cannot be read as a review store: {error}.",
                advice="Keep a copy of the file; then delete that row of its table `reviews` with sqlite3, and review the ticket again.",
            )
        return StoreError(
            f"{self.path} cannot be read as a review store: {said}.",
            advice=f"Give another path. If it was one: keep the file, and try `sqlite3 {self.path.name} .recover` on a copy.",
        )


def pick(tickets: Sequence[Ticket], ids: Iterable[str], *, seed: int = 0) -> list[Ticket]:
    """The tickets of these ids in an order that tells nothing: mixed by a hash, so that a reviewer cannot guess why one was sent.

    Raises:
        ConfigurationError: one is not among the tickets.
    """
    known, wanted = {t.id: t for t in tickets}, list(ids)
    missing = [i for i in wanted if i not in known]
    if missing:
        raise ConfigurationError(
            f"{len(missing)} tickets to review are not among those given: {_some(missing)}.",
            advice="Give the tickets that the outcomes are of.",
        )
    return [known[i] for i in sorted(wanted, key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).hexdigest())]


def shown(verdict: Verdict) -> str:
    """A verdict in one line, e.g. "billing P1 needs_human"."""
    return f"{verdict.category} {verdict.priority}{' needs_human' * verdict.needs_human}"


def _parsed(ticket_id: str, seat: str, review: str) -> Review:
    try:
        return Review.from_json(review)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"the row of {ticket_id}, {seat}, is damaged ({type(error).__name__}: {error})") from error


def _said(verdict: Verdict) -> tuple[str, str, bool]:
    return verdict.category, verdict.priority, verdict.needs_human


def _seat(review: Review) -> str:
    return ADJUDICATION if review.settles else f"by:{review.reviewer}"


def _some(ids: Sequence[str], most: int = 5) -> str:
    return ", ".join(ids[:most]) + (f" and {len(ids) - most} more" if len(ids) > most else "")
