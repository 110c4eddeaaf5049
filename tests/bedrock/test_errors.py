"""One class a cause, each with advice of its own; nothing of the service or of botocore is left unnamed."""

from __future__ import annotations

import botocore.exceptions as boto
import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from urllib3.exceptions import ProtocolError

from workshop_lib.bedrock import errors
from workshop_lib.bedrock.errors import BY_CODE, BedrockError, WorkshopError, from_botocore

MODEL = ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"))
MODELLED = sorted(shape.name for shape in MODEL.error_shapes)


def _classes(root: type[WorkshopError]) -> list[type[WorkshopError]]:
    return [root, *(c for child in root.__subclasses__() for c in _classes(child) if c.__module__ == errors.__name__)]


def _error(code: str, message: str = "because", **metadata) -> boto.ClientError:
    return boto.ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}, "Converse")


@pytest.mark.parametrize("code", MODELLED)
def test_every_error_of_the_service_has_a_class_with_advice_of_its_own(code):
    ours = from_botocore(_error(code), model="cheap-one", attempts=3)
    assert type(ours) is BY_CODE[code] is not BedrockError
    assert ours.advice == vars(BY_CODE[code])["default_advice"]
    assert (ours.code, ours.model, ours.attempts) == (code, "cheap-one", 3)


@pytest.mark.parametrize(
    "kind", [c for c in _classes(WorkshopError) if c is not BedrockError], ids=lambda c: c.__name__
)
def test_every_class_has_advice_of_its_own(kind):
    assert vars(kind)["default_advice"]


def test_no_two_classes_give_the_same_advice():
    told = [vars(kind)["default_advice"] for kind in _classes(WorkshopError) if "default_advice" in vars(kind)]
    assert len(set(told)) == len(told)


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = [line.strip("│├└─ ").split()[0] for line in errors.__doc__.splitlines()[2:] if line.strip()]
    assert drawn == [c.__name__ for c in _classes(WorkshopError)]


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        ("ThrottlingException", "Too many tokens per day, please wait.", errors.DailyQuotaReached),
        ("ThrottlingException", "Too many tokens, please wait.", errors.Throttled),
        (errors.NOT_RETRIED, "Too many tokens per day, please wait.", errors.DailyQuotaReached),
        ("ValidationException", "... with on-demand throughput isn't supported.", errors.NeedsInferenceProfile),
        ("ValidationException", "The provided model identifier is invalid.", errors.RegionError),
        ("AccessDeniedException", "your request did not allow prompt caching", errors.InvalidRequest),
        ("AccessDeniedException", "Bearer Token has expired", errors.CredentialsError),
        ("ExpiredTokenException", "expired", errors.CredentialsError),
        ("SerializationException", "not JSON", errors.InvalidRequest),
        ("SomethingNew", "who knows", BedrockError),
    ],
    ids=["daily", "rate", "daily, marked", "bare id", "elsewhere", "cache point", "token", "expired", "json", "new"],
)
def test_the_message_tells_causes_apart(code, message, kind):
    assert type(from_botocore(_error(code, message))) is kind


@pytest.mark.parametrize(
    ("code", "kind", "full"),
    [
        ("modelStreamErrorException", errors.StreamBroken, "ModelStreamErrorException"),
        ("throttlingException", errors.StreamBroken, "ThrottlingException"),
        ("internalServerException", errors.StreamBroken, "InternalServerException"),
        ("serviceUnavailableException", errors.StreamBroken, "ServiceUnavailableException"),
        ("validationException", errors.InvalidRequest, "ValidationException"),
    ],
)
def test_inside_a_stream_camel_case_is_understood(code, kind, full):
    ours = from_botocore(boto.EventStreamError({"Error": {"Code": code, "Message": "x"}}, "ConverseStream"))
    assert (type(ours), ours.code) == (kind, full)


def test_the_daily_quota_is_known_inside_a_stream_too():
    error = {"Error": {"Code": "throttlingException", "Message": "Too many tokens per day, please wait."}}
    assert type(from_botocore(boto.EventStreamError(error, "ConverseStream"))) is errors.DailyQuotaReached


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (boto.NoRegionError(), errors.RegionError),
        (boto.NoCredentialsError(), errors.CredentialsError),
        (boto.PartialCredentialsError(provider="env", cred_var="key"), errors.CredentialsError),
        (boto.ProfileNotFound(profile="dev"), errors.CredentialsError),
        (boto.TokenRetrievalError(provider="sso", error_msg="expired"), errors.CredentialsError),
        (boto.ParamValidationError(report="modelId: missing"), errors.InvalidRequest),
        (boto.ReadTimeoutError(endpoint_url="http://x"), errors.ReplyTimeout),
        (boto.ConnectTimeoutError(endpoint_url="http://x"), errors.Unreachable),
        (boto.EndpointConnectionError(endpoint_url="http://x"), errors.Unreachable),
        (boto.ConnectionClosedError(endpoint_url="http://x"), errors.Unreachable),
        (boto.SSLError(endpoint_url="http://x", error="bad"), errors.Unreachable),
        (ProtocolError("broken"), errors.StreamBroken),
        (boto.DataNotFoundError(data_path="x"), BedrockError),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Exception) else x.__name__,
)
def test_an_exception_of_botocore_has_its_class(error, kind):
    ours = from_botocore(error)
    assert (type(ours), ours.code) == (kind, type(error).__name__)


def test_an_error_says_what_and_then_what_to_do():
    error = from_botocore(_error("ConflictException", "It is\n  being changed"), model="cheap-one")
    assert error.message == "cheap-one: It is being changed."
    assert str(error) == f"{error.message} {errors.Conflict.default_advice}"


def test_advice_can_be_given_for_the_case():
    assert str(errors.ConfigurationError("No.", advice="Do this.")) == "No. Do this."
