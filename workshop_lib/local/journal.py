"""Which HTTP requests the local endpoint was sent, and what became of each: the proof behind every cost and retry count."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from workshop_lib.bedrock.catalogue import Usage


@dataclass
class Entry:
    """One HTTP request."""

    operation: str
    model_id: str
    invocation: str
    """The same for all retries of one boto3 call (`amz-sdk-invocation-id`), "" from other clients."""
    attempt: int
    status: int = 0
    error: str = ""
    usage: Usage = field(default_factory=Usage)
    cost_usd: float = 0.0
    latency_ms: float = 0.0
    guardrail: str = ""
    """Id and version of the guardrail that the request names, e.g. "workshop 2"; "" without one."""


class Journal:
    """The last requests, oldest first."""

    def __init__(self, keep: int = 200_000) -> None:
        self._entries: deque[Entry] = deque(maxlen=keep)
        self._lock = threading.Lock()

    def add(self, entry: Entry) -> None:
        """Note a request that was answered."""
        with self._lock:
            self._entries.append(entry)

    def clear(self) -> None:
        """Start again with an empty page."""
        with self._lock:
            self._entries.clear()

    def __iter__(self) -> Iterator[Entry]:
        with self._lock:
            return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def calls(self) -> int:
        """Logical calls: requests of one invocation count once."""
        entries = list(self)
        return len({e.invocation for e in entries if e.invocation}) + sum(not e.invocation for e in entries)

    @property
    def cost_usd(self) -> float:
        """USD of everything that was answered."""
        return sum(e.cost_usd for e in self)

    @property
    def errors(self) -> Counter[str]:
        """How often each error was answered."""
        return Counter(e.error for e in self if e.error)
