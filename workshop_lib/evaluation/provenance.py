"""What a recorded run belongs to, and whether a file of it is whole: a replay that fits something else is refused by name.

recording.save(path)
Recording.load(path).check(Provenance.of(tickets, labels, tiers, client=client))
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from workshop_lib.bedrock.catalogue import Catalogue
from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.bulk.intake import identify
from workshop_lib.bulk.rows import Row, attempt_of
from workshop_lib.cascade.attempt import Attempt, Tier
from workshop_lib.cascade.cascade import id_of
from workshop_lib.triage.task import TRIAGE, Task

T = TypeVar("T")
FORM = "recorded-run-1"
NOTED, UNNOTED = ("labels", "catalogue"), ("libraries", "made_at")
"""What may differ without making a replay wrong: told all the same, and written down only."""
LIBRARIES = ("two-tier-workshop", "boto3", "numpy", "scikit-learn", "onnxruntime")


class RecordingError(ConfigurationError):
    """A recorded run is cut short, was changed, or belongs to something else."""

    default_advice = "Run it again without --dry-run, or restore the file."


@dataclass(frozen=True)
class Provenance:
    """All that the answers of a run depend on, and what they are judged by."""

    task: str
    prompt: str
    """Hash of everything that the models are told."""
    tiers: Mapping[str, Mapping[str, Any]]
    """By name: model (key and id) and settings."""
    catalogue: str
    """Version of prices and ids."""
    door: Mapping[str, Any]
    """Local or live, Region, guardrail; at the local door also which small models stand in."""
    split: str
    """Of the tickets; "mixed" or "own" where they are of several or of none."""
    tickets: str
    """Hash of ids and of what the models are told about each."""
    labels: str
    """Hash of the answer key of these tickets; "" without one."""
    count: int
    libraries: Mapping[str, str] = field(default_factory=dict)
    made_at: str = ""
    """UTC, ISO 8601."""

    @classmethod
    def of(
        cls,
        tickets: Sequence[Any],
        labels: Mapping[str, Any],
        tiers: Sequence[Tier],
        *,
        catalogue: Catalogue,
        door: Mapping[str, Any],
        task: Task[Any] = TRIAGE,
    ) -> Provenance:
        """Of these tickets, asked of these tiers, now.

        Raises:
            ConfigurationError: the task cannot describe a ticket.
            UnknownModel: a tier names no model of the catalogue.
        """
        known = {id_of(ticket): labels.get(id_of(ticket)) for ticket in tickets}
        splits = {str(getattr(label, "split", "own")) for label in known.values()}
        settings = {tier.name: tier.settings for tier in tiers}
        for tier in tiers:
            spec = catalogue[tier.model]
            settings[tier.name] |= {"key": spec.key, "id": spec.id}
        return cls(
            task=task.name,
            prompt=task.fingerprint,
            tiers=settings,
            catalogue=catalogue.version,
            door=dict(door),
            split=splits.pop() if len(splits) == 1 else "mixed",
            tickets=digest_of(sorted(identify(task, ticket) for ticket in tickets)),
            labels=digest_of([[i, repr(label)] for i, label in sorted(known.items())]) if any(known.values()) else "",
            count=len(tickets),
            libraries=libraries(LIBRARIES),
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def hash_of(self, tier: str) -> str:
        """Of all that one tier's answers depend on but the tickets: answers of equal hash may be kept in one file."""
        return digest_of([self.task, self.prompt, self.tiers[tier], self.door])

    def differences(self, other: Provenance) -> dict[str, str]:
        """Part to "then ..., now ...", `self` being then."""
        parts = [f.name for f in fields(self)]
        return {
            part: f"then {_short(getattr(self, part))}, now {_short(getattr(other, part))}"
            for part in parts
            if getattr(self, part) != getattr(other, part)
        }


@dataclass(frozen=True)
class Recording:
    """The answers of some tiers to some tickets, one row each, and what they belong to."""

    provenance: Provenance
    rows: tuple[Row, ...]

    def answers(self, task: Task[Any] = TRIAGE) -> dict[str, dict[str, Attempt[Any]]]:
        """Ticket id to tier to attempt."""
        found: dict[str, dict[str, Attempt[Any]]] = {}
        for row in self.rows:
            found.setdefault(row.ticket_id, {})[row.tier] = attempt_of(row, task)
        return found

    @property
    def cost_usd(self) -> float:
        """USD of all calls."""
        return sum(row.cost_usd for row in self.rows)

    def check(self, now: Provenance) -> tuple[str, ...]:
        """Hold it against what would be run now.

        Returns:
            What differs without making a replay wrong: an answer key that has changed, prices, libraries.

        Raises:
            RecordingError: it belongs to something else; the message names every part.
        """
        differences = self.provenance.differences(now)
        missing = set(now.tiers) - set(self.provenance.tiers)
        same = {n: t for n, t in self.provenance.tiers.items() if n in now.tiers} == dict(now.tiers)
        if same:
            differences.pop("tiers", None)  # tiers that are not asked for do no harm
        elif missing:
            differences["tiers"] = f"it has no answers of {', '.join(sorted(missing))}"
        wrong = {part: said for part, said in differences.items() if part not in (*NOTED, *UNNOTED)}
        if wrong:
            told = "; ".join(f"{part}: {said}" for part, said in wrong.items())
            raise RecordingError(f"The recorded run belongs to something else: {told}.")
        return tuple(f"{part}: {said}" for part, said in differences.items() if part in NOTED)

    def save(self, path: Path) -> None:
        """Write it: a line of provenance, then a line a row. The first one holds a hash of the others."""
        lines = [row.to_json() for row in self.rows]
        write_sealed(path, {"form": FORM, "provenance": asdict(self.provenance)}, lines)

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read a file of `save`.

        Raises:
            RecordingError: there is none, it was cut short or changed, or another version wrote it.
        """
        return read_sealed(
            path,
            lambda head, lines: cls(Provenance(**head["provenance"]), tuple(map(Row.model_validate_json, lines))),
            form=FORM,
            made="recorded",
            counted="rows",
            error=RecordingError,
        )


def write_sealed(path: Path, head: Mapping[str, Any], lines: Sequence[str]) -> None:
    """Write JSONL whose first line, `head`, also says how many others there are, and holds a hash of them."""
    sealed = {**head, "rows": len(lines), "sha256": digest_of(lines)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([json.dumps(sealed, sort_keys=True), *lines]) + "\n", encoding="utf-8", newline="\n")


def read_sealed(
    path: Path,
    build: Callable[[dict[str, Any], list[str]], T],
    *,
    form: str,
    made: str,
    counted: str,
    error: type[ConfigurationError],
) -> T:
    """Read a file of `write_sealed`, if it is whole and unchanged.

    Args:
        path: of the file.
        build: makes what is wanted of the first line and the others; its ValueError, KeyError and TypeError mean that it is not of this kind.
        form: that this version reads.
        made, counted: how such a run came about ("recorded"), and what its lines are ("rows"), for messages.
        error: the class of what is raised.

    Raises:
        ConfigurationError: as `error`: there is none, it was cut short or changed, or another version wrote it.
    """
    try:
        # Not splitlines(): a ticket's text may hold any of Unicode's line ends, which JSON leaves as they are.
        head_line, *lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
        head = json.loads(head_line)
        found, told, digest = head["form"], head["rows"], head["sha256"]
        if found != form:
            raise error(f"{path.name} has the form {found!r}; this version reads {form!r}.")
        if len(lines) != told:
            raise error(f"{path.name} is cut short: {len(lines)} {counted} of {told}.")
        if digest_of(lines) != digest:
            raise error(f"{path.name} was changed after it was {made}.")
        return build(head, lines)
    except OSError:
        raise error(f"There is no {made} run {path}.") from None
    except (ValueError, KeyError, TypeError, ValidationError) as problem:
        raise error(f"{path.name} is no {made} run: {type(problem).__name__}: {problem}.") from None


def libraries(names: Sequence[str]) -> dict[str, str]:
    """The versions of Python and of these packages, to be written down with a run."""
    return {"python": platform.python_version()} | {name: _version(name) for name in names}


def digest_of(value: object) -> str:
    """A short hash of anything that JSON can hold, the same in every process."""
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")).hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _short(value: object) -> str:
    text = json.dumps(value, sort_keys=True) if isinstance(value, Mapping) else str(value)
    return text if len(text) <= 200 else text[:200] + "..."
