"""What went wrong, one class a cause, each with what to do next.

WorkshopError                      everything this package raises on purpose; `.advice` says what to do next
├── ConfigurationError             settings, `.env`, catalogue or data files are not usable
│   └── UnknownModel               a role, key or model id that the catalogue does not hold
├── BedrockError                   a call failed; `.model`, `.code`, `.attempts` say which and how often it was tried
│   ├── CredentialsError           none, expired, or the wrong profile
│   ├── RegionError                no Region, or the model is not offered there
│   ├── AccessDenied               the account or its policies do not allow the model
│   ├── ModelNotFound              no such model, or its use-case form is missing
│   ├── InvalidRequest             the service refused what was sent
│   │   └── NeedsInferenceProfile  the bare model id cannot be called on demand
│   ├── Throttled                  too many requests or tokens a minute, after all retries
│   ├── DailyQuotaReached          too many tokens per day: retrying is useless
│   ├── QuotaExceeded              an account limit (not a rate) is reached
│   ├── Conflict                   the resource is being changed by somebody else
│   ├── ServiceFault               500, 503 or a model that is not ready, after all retries
│   ├── ModelTimeout               the model took too long (408)
│   ├── ModelFailed                the model itself failed (424)
│   ├── StreamBroken               an answer that had begun broke off
│   ├── Unreachable                no connection, or it was dropped
│   └── ReplyTimeout               connected, but no answer within `read_timeout`
└── InvalidOutput                  the model answered, but not in the asked form; `.reply` was paid for
"""

from __future__ import annotations

from typing import Any

import botocore.exceptions as boto


class WorkshopError(Exception):
    """Base of all errors of this package.

    Attributes:
        advice: what to do next, one or two sentences.
    """

    default_advice = "Run `workshop doctor`: it checks the set-up and names the fix."

    def __init__(self, message: str, *, advice: str | None = None) -> None:
        super().__init__(message)
        self.advice = advice or self.default_advice

    def __str__(self) -> str:
        return f"{super().__str__()} {self.advice}"

    @property
    def message(self) -> str:
        """What happened, without the advice."""
        return super().__str__()


class ConfigurationError(WorkshopError):
    """Settings, `.env`, the catalogue or a data file cannot be used as they are."""

    default_advice = "Compare your `.env` with `.env.example`."


class UnknownModel(ConfigurationError):
    """A role, key or model id that the catalogue does not hold."""

    default_advice = (
        "The catalogue is data/models.json; name a role (cheap, strong, judge, classifier) or one of its keys."
    )


class BedrockError(WorkshopError):
    """A call to Bedrock failed.

    Attributes:
        model: the catalogue key of the model that was called, "" when no model was involved.
        code: the service's own error code, or botocore's exception name.
        attempts: HTTP requests that were sent for this call.
    """

    def __init__(
        self, message: str, *, model: str = "", code: str = "", attempts: int = 0, advice: str | None = None
    ) -> None:
        super().__init__(message, advice=advice)
        self.model, self.code, self.attempts = model, code, attempts


class CredentialsError(BedrockError):
    """No credentials, expired ones, or a profile that does not exist."""

    default_advice = (
        "Sign in again (`aws sso login --profile NAME`, or fresh keys), unset stale AWS_* variables "
        "and AWS_BEARER_TOKEN_BEDROCK, and run `workshop doctor`."
    )


class RegionError(BedrockError):
    """No Region is set, or the model is not offered in it."""

    default_advice = (
        "Set AWS_DEFAULT_REGION (boto3 does not read AWS_REGION) to a Region that offers the model, e.g. us-west-2."
    )


class AccessDenied(BedrockError):
    """The account, an IAM policy or a service control policy does not allow the call."""

    default_advice = (
        "Allow bedrock:InvokeModel on the inference profile *and* on the foundation model in every Region of the "
        "profile, and check the model's Marketplace subscription in the Bedrock console."
    )


class ModelNotFound(BedrockError):
    """No such model in this Region, or Anthropic's first-use form has not been submitted."""

    default_advice = "Check the id in data/models.json; for Anthropic models submit the use-case form in the Bedrock console and wait a quarter of an hour."


class InvalidRequest(BedrockError):
    """The service refused the request as it was sent (400)."""

    default_advice = "The message names the field; compare it with the Converse reference. Sending the same request again will not help."


class NeedsInferenceProfile(InvalidRequest):
    """The model can only be called through an inference profile, not by its bare id."""

    default_advice = (
        "Use the `us.` or `global.` id of the catalogue (WORKSHOP_PROFILE=us or global) instead of the bare model id."
    )


class Throttled(BedrockError):
    """Too many requests or tokens a minute; the retries were used up."""

    default_advice = (
        "Use fewer workers, set max_tokens close to what you need (quota is reserved by it), or ask for a higher quota."
    )


class DailyQuotaReached(BedrockError):
    """Too many tokens per day: nothing will succeed before the quota is renewed."""

    default_advice = "Stop here and resume tomorrow, use another model or Region, or ask for a higher daily quota."


class QuotaExceeded(BedrockError):
    """An account limit that is not a rate."""

    default_advice = "Look the limit up in Service Quotas and ask for an increase."


class Conflict(BedrockError):
    """The resource is being changed by another operation."""

    default_advice = "Wait a minute and try again."


class ServiceFault(BedrockError):
    """Bedrock answered 500 or 503, or the model was not ready, and retries did not help."""

    default_advice = "Try again in a few minutes; if it lasts, look at the AWS Health Dashboard or use another Region."


class ModelTimeout(BedrockError):
    """The model did not finish in time (408)."""

    default_advice = "Lower max_tokens or shorten the prompt, or stream the answer."


class ModelFailed(BedrockError):
    """The model itself failed (424)."""

    default_advice = "Try again; if the same ticket fails each time, look at its text."


class StreamBroken(BedrockError):
    """An answer that had begun broke off: an error inside a stream, or a connection that dropped."""

    default_advice = "The whole call must be made again; what came so far is incomplete."


class Unreachable(BedrockError):
    """No connection could be made, or it was dropped."""

    default_advice = "Check the effective endpoint with `workshop doctor`: is the local endpoint still running, is a proxy in the way?"


class ReplyTimeout(BedrockError):
    """The connection stood, but no answer came within read_timeout."""

    default_advice = "Raise read_timeout to fit max_tokens, or stream: each silent attempt may be billed."


class InvalidOutput(WorkshopError):
    """The model answered, but not in the asked form.

    Attributes:
        reply: the `Reply` as it came. It was paid for.
    """

    default_advice = "Raise max_tokens if it was cut off; else send the item to a stronger tier or to a person."

    def __init__(self, message: str, *, reply: Any = None, advice: str | None = None) -> None:
        super().__init__(message, advice=advice)
        self.reply = reply


# Every exception of the service model by name (a test holds this table against the installed botocore),
# and codes that the same endpoint answers with although its model does not list them.
BY_CODE: dict[str, type[BedrockError]] = {
    "AccessDeniedException": AccessDenied,
    "ConflictException": Conflict,
    "InternalServerException": ServiceFault,
    "ModelErrorException": ModelFailed,
    "ModelNotReadyException": ServiceFault,
    "ModelStreamErrorException": StreamBroken,
    "ModelTimeoutException": ModelTimeout,
    "ResourceNotFoundException": ModelNotFound,
    "ServiceQuotaExceededException": QuotaExceeded,
    "ServiceUnavailableException": ServiceFault,
    "ThrottlingException": Throttled,
    "ValidationException": InvalidRequest,
    "ExpiredTokenException": CredentialsError,
    "ExpiredToken": CredentialsError,
    "UnrecognizedClientException": CredentialsError,
    "InvalidSignatureException": CredentialsError,
    "IncompleteSignature": CredentialsError,
    "MissingAuthenticationTokenException": CredentialsError,
    "SerializationException": InvalidRequest,
}
NOT_RETRIED = "ValidationException"
"""A code of the operation that botocore does not retry; one that the operation does not list it would, on a 429."""
_OF_BOTOCORE: tuple[tuple[type[Exception], type[BedrockError]], ...] = (
    (boto.NoRegionError, RegionError),
    (boto.ProfileNotFound, CredentialsError),
    (boto.NoCredentialsError, CredentialsError),
    (boto.PartialCredentialsError, CredentialsError),
    (boto.CredentialRetrievalError, CredentialsError),
    (boto.SSOTokenLoadError, CredentialsError),
    (boto.UnauthorizedSSOTokenError, CredentialsError),
    (boto.TokenRetrievalError, CredentialsError),
    (boto.ParamValidationError, InvalidRequest),
    (boto.ReadTimeoutError, ReplyTimeout),
    (boto.ConnectionError, Unreachable),
    (boto.ResponseStreamingError, StreamBroken),
    (boto.HTTPClientError, Unreachable),
    (boto.InvalidEndpointConfigurationError, CredentialsError),
)


def of_a_call() -> tuple[type[Exception], ...]:
    """What a boto3 call can raise; a stream that breaks raises urllib3's own errors."""
    return boto.ClientError, boto.BotoCoreError, _http_error()


def from_botocore(error: Exception, *, model: str = "", attempts: int = 0) -> BedrockError:
    """Translate any exception that a boto3 call raises into one of ours (the original is kept as `__cause__` by the caller).

    Inside a stream botocore reports the member's name in camelCase (`throttlingException`): both spellings are understood.
    """
    text = str(error)
    if isinstance(error, boto.ClientError):
        response: dict[str, Any] = dict(error.response)
        code = str(response.get("Error", {}).get("Code", ""))
        code = code[:1].upper() + code[1:]
        text = str(response.get("Error", {}).get("Message") or text)
        kind = _kind_of(code, text)
        if isinstance(error, boto.EventStreamError) and kind not in (InvalidRequest, DailyQuotaReached):
            kind = StreamBroken
        if kind is DailyQuotaReached:
            code = "ThrottlingException"  # what the service said, whatever our client made of it
    else:
        code = type(error).__name__
        known: tuple[tuple[type[Exception], type[BedrockError]], ...] = (*_OF_BOTOCORE, (_http_error(), StreamBroken))
        kind = next((ours for theirs, ours in known if isinstance(error, theirs)), BedrockError)
    where = f"{model}: " if model else ""
    return kind(f"{where}{_as_sentence(text)}", model=model, code=code, attempts=attempts)


def is_daily_quota(message: str) -> bool:
    """Whether a throttling message speaks of the quota per day, which no retry can satisfy."""
    return "per day" in message.lower()


def _http_error() -> type[Exception]:
    from urllib3.exceptions import HTTPError  # a tenth of a second that `import workshop_lib` need not take

    return HTTPError


def _kind_of(code: str, message: str) -> type[BedrockError]:
    lower = message.lower()
    if code in ("ThrottlingException", NOT_RETRIED) and is_daily_quota(message):
        return DailyQuotaReached
    if code == "ValidationException" and "on-demand throughput" in lower:
        return NeedsInferenceProfile
    if code == "ValidationException" and "model identifier is invalid" in lower:
        return RegionError
    if code == "AccessDeniedException" and "prompt caching" in lower:
        return InvalidRequest  # a cache point sent to a model that has no prompt cache is answered with 403
    if code == "AccessDeniedException" and "token" in lower and "expired" in lower:
        return CredentialsError
    return BY_CODE.get(code, BedrockError)


def _as_sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else text + "."
