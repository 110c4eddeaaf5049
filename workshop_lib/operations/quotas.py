"""How much of a model an account may use: read from Service Quotas where there is an account, and never guessed.

Names as Service Quotas lists them for Bedrock, e.g. "On-demand model inference tokens per minute for ...", "Cross-region model inference
requests per minute for ...", "Model invocation max tokens per day for ... (doubled for cross-region calls)", "Global cross-region model
inference tokens per day for ..." (Amazon Bedrock User Guide, "Quotas for Amazon Bedrock"). They are limits, not use: that is in CloudWatch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from workshop_lib.bedrock.catalogue import ModelSpec
from workshop_lib.bedrock.errors import from_botocore
from workshop_lib.bedrock.pacing import Quota
from workshop_lib.bedrock.settings import Settings

KINDS = ("requests_per_minute", "tokens_per_minute", "tokens_per_day")


def account_quotas(settings: Settings, specs: Iterable[ModelSpec]) -> dict[str, Quota]:
    """`read_quotas` of the account and Region that the settings name; at the live door, since the local one has no account.

    Raises:
        BedrockError: they cannot be read.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        session = boto3.Session(profile_name=settings.aws_profile, region_name=settings.region)
        return read_quotas(session.client("service-quotas"), specs)
    except (BotoCoreError, ClientError) as error:
        raise from_botocore(error) from error


def read_quotas(client: Any, specs: Iterable[ModelSpec]) -> dict[str, Quota]:
    """The quotas of models, by catalogue key; what is not listed stays None: not known.

    Args:
        client: of boto3's `service-quotas`, in the Region that is called.
        specs: the models, in the scope in use.

    Raises:
        BotoCoreError, ClientError: the account's quotas cannot be listed, and AWS's defaults cannot either.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        applied = _listed(client, "list_service_quotas")
    except (BotoCoreError, ClientError):  # an account that may read the defaults alone
        applied = {}
        defaults = _listed(client, "list_aws_default_service_quotas")
    else:
        # What an account has never used may be missing in the first list.
        try:
            defaults = _listed(client, "list_aws_default_service_quotas")
        except (BotoCoreError, ClientError):
            defaults = {}
    return {spec.key: quota_of(spec, defaults | applied) for spec in specs}


def quota_of(spec: ModelSpec, listed: Mapping[str, float]) -> Quota:
    """One model's quota from a list of names and values; of several names that fit, the lowest value counts.

    A daily quota that is doubled for cross-region calls is told as it holds in the model's scope.
    """
    found: dict[str, float] = {}
    for name, listed_value in listed.items():
        kind = next((k for k in KINDS if k.replace("_", " ") in name.lower()), None)
        if kind is not None and _is_of(spec, name):
            doubled = spec.scope != "on-demand" and "(doubled for cross-region calls)" in name.lower()
            value = 2 * listed_value if doubled else listed_value
            found[kind] = min(value, found.get(kind, value))
    return Quota(**found)


def _listed(client: Any, operation: str) -> dict[str, float]:
    pages = client.get_paginator(operation).paginate(ServiceCode="bedrock")
    return {quota["QuotaName"]: float(quota["Value"]) for page in pages for quota in page["Quotas"]}


def _is_of(spec: ModelSpec, name: str) -> bool:
    """Whether a quota's name is of this model in this scope. Another version of it is another model: 4 is not 4.6.

    Calls with a context of 1M tokens, and latency-optimized ones, have quotas of their own, which these are not.
    """
    scope, _, model = name.lower().partition(" for ")
    if "context length" in model or "latency-optimized" in scope:
        return False
    across, worldwide = "cross-region" in scope, "global" in scope
    if spec.scope == "on-demand":
        fits = not across
    elif spec.scope == "global":
        fits = across and worldwide
    else:  # of a day there is one quota, on demand and within a geography
        fits = not worldwide and (across or "per day" in scope)
    words, label = re.findall(r"[\w.]+", model), spec.label.lower().split()
    return fits and any(words[i : i + len(label)] == label for i in range(len(words)))
