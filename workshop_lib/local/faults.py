"""What goes wrong at the local endpoint, and when: a schedule of faults, so that failures can be watched and tested.

    endpoint.faults.add(Fault("ThrottlingException", first=3))
    endpoint.faults.add(Fault("invalid_output", model="nemotron", every=5))
    endpoint.faults.add(Fault("ServiceUnavailableException", operation="ApplyGuardrail"))

A single call can also ask for its own fault: requestMetadata={"workshop-fault": "ServiceUnavailableException"}.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workshop_lib.local.wire import ServiceError

SHAPES = {
    "slow": "the answer takes `delay_ms` longer",
    "invalid_output": "the answer is prose without the JSON that was asked for",
    "drop": "the connection is closed before the answer",
    "endless": "the answer begins, and then only blanks drip, so that no read timeout strikes (streams come as ever)",
    "cut": "a stream ends after a few events, without its last ones",
}
MESSAGES = {
    "AccessDeniedException": "You don't have access to the model with the specified model ID.",
    "ConflictException": "The resource is being modified by another request.",
    "InternalServerException": "The system encountered an unexpected error during processing. Try your request again.",
    "ModelErrorException": "The system encountered an unexpected error during processing. Try your request again.",
    "ModelNotReadyException": "The model is not ready for inference. Try again later.",
    "ModelStreamErrorException": "The model stream failed. Try your request again.",
    "ModelTimeoutException": "Model has timed out in processing the request. Try your request again.",
    "ResourceNotFoundException": "Model use case details have not been submitted for this account.",
    "ServiceQuotaExceededException": "Your request exceeds a service quota for your account.",
    "ServiceUnavailableException": "Bedrock is unable to process your request.",
    "ThrottlingException": "Too many requests, please wait before trying again.",
    "ValidationException": "The provided request is not valid.",
    "ExpiredTokenException": "The security token included in the request is expired",
    "UnrecognizedClientException": "The security token included in the request is invalid.",
}
_MEMBERS: dict[str, dict[str, Any]] = {
    "ModelErrorException": {"originalStatusCode": 500},
    "ModelStreamErrorException": {"originalStatusCode": 500, "originalMessage": "The model stream failed."},
}


@dataclass(frozen=True)
class Fault:
    """One kind of failure and the calls it strikes. Without `first`, `every` or `at` it strikes each matching call."""

    kind: str
    """An error of the service by name, "mid-stream:<name>", or one of `SHAPES`."""
    model: str = ""
    """Only calls whose model id contains this."""
    operation: str = ""
    """"ApplyGuardrail": its calls alone; "": those of models (Converse, ConverseStream, InvokeModel)."""
    first: int = 0
    """The first so many matching calls."""
    every: int = 0
    """Every so-manieth matching call."""
    at: frozenset[int] = field(default_factory=frozenset)
    """These matching calls, counted from 1."""
    message: str = ""
    delay_ms: float = 0

    def __post_init__(self) -> None:
        name = self.kind.removeprefix("mid-stream:")
        if name not in MESSAGES and self.kind not in SHAPES:
            raise ValueError(f"unknown fault {self.kind!r}; known: {', '.join([*SHAPES, *MESSAGES])}")
        if self.operation not in ("", "ApplyGuardrail"):
            raise ValueError(
                f"no fault can be set for {self.operation!r}: name ApplyGuardrail, or nothing for model calls"
            )

    def strikes(self, nth: int) -> bool:
        """Whether the n-th matching call (from 1) is struck."""
        if not (self.first or self.every or self.at):
            return True
        return nth <= self.first or (self.every > 0 and nth % self.every == 0) or nth in self.at

    @property
    def mid_stream(self) -> bool:
        """Whether it strikes after the stream has begun."""
        return self.kind.startswith("mid-stream:") or self.kind == "cut"

    def error(self) -> ServiceError:
        """The error it stands for."""
        name = self.kind.removeprefix("mid-stream:")
        return ServiceError(name, self.message or MESSAGES[name], **_MEMBERS.get(name, {}))


class FaultSchedule:
    """The faults in force, each with its own count of matching calls."""

    def __init__(self) -> None:
        self._faults: list[tuple[Fault, list[int]]] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Put a fault in force from the next call on."""
        with self._lock:
            self._faults.append((fault, [0]))

    def clear(self) -> None:
        """Take all faults back."""
        with self._lock:
            self._faults.clear()

    def next(self, model_id: str, metadata: Mapping[str, str] | None = None, *, operation: str = "") -> Fault | None:
        """The fault that strikes this call, if any: the one it asks for itself, else the first scheduled one.

        A call of a model gives no `operation`; one of another operation is struck only by faults that name it.
        """
        asked = (metadata or {}).get("workshop-fault")
        if asked:
            try:
                return Fault(asked)
            except ValueError as error:
                raise ServiceError("ValidationException", f"requestMetadata: {error}.") from None
        struck: Fault | None = None
        with self._lock:
            for fault, count in self._faults:
                if fault.operation == operation and fault.model in model_id:
                    count[0] += 1
                    if struck is None and fault.strikes(count[0]):
                        struck = fault
        return struck
