"""Which calls a role may make, and no others: the IAM policy document for the models and the guardrail in use.

    json.dumps(iam_policy([catalogue["cheap"], catalogue["strong"]], region="us-west-2"), indent=2)

There is no action bedrock:Converse: Converse is allowed by bedrock:InvokeModel, ConverseStream by bedrock:InvokeModelWithResponseStream.
A call through an inference profile needs the profile's ARN *and* the foundation model's ARN in every Region of the profile. A `global.`
profile is served in whichever Region has room, which the policy writes as an ARN without a Region and the requested Region "unspecified"
(Amazon Bedrock user guide: prerequisites for inference profiles; global cross-Region inference).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from workshop_lib.bedrock.catalogue import ModelSpec
from workshop_lib.bedrock.errors import ConfigurationError

INVOKE = ("bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream")
BATCH = ("bedrock:CreateModelInvocationJob", "bedrock:GetModelInvocationJob", "bedrock:StopModelInvocationJob")
ACCOUNT = "ACCOUNT_ID"
"""Stands for the account's number, which does not belong into outputs."""


def iam_policy(
    models: Sequence[ModelSpec],
    *,
    region: str,
    account: str = ACCOUNT,
    guardrail: str | None = None,
    count_tokens: bool = True,
    batch_bucket: str | None = None,
) -> dict[str, Any]:
    """The policy document.

    Args:
        models: what may be called; each once.
        region: from which calls are made.
        account: its number; by default a placeholder to fill in.
        guardrail: id or ARN of the guardrail; None: none may be asked. IAM knows no versions of it: pin those in the settings.
        count_tokens: whether CountTokens is allowed (it is free of charge).
        batch_bucket: the S3 bucket of batch jobs; None: no batch jobs. The job's own role needs the same bucket.

    Raises:
        ConfigurationError: no models, or a profile whose Regions the catalogue does not know.
    """
    statements = invoke_statements(models, region=region, account=account)
    if count_tokens:
        arns = _unique(_model_arn(region, spec) for spec in models)
        statements.append(
            {"Sid": "CountTokens", "Effect": "Allow", "Action": ["bedrock:CountTokens"], "Resource": arns}
        )
    if guardrail is not None:
        arn = guardrail if guardrail.startswith("arn:") else f"arn:aws:bedrock:{region}:{account}:guardrail/{guardrail}"
        statements.append(
            {"Sid": "ApplyGuardrail", "Effect": "Allow", "Action": ["bedrock:ApplyGuardrail"], "Resource": [arn]}
        )
    if batch_bucket is not None:
        bucket = f"arn:aws:s3:::{batch_bucket}"
        jobs = [*statements[0]["Resource"], f"arn:aws:bedrock:{region}:{account}:model-invocation-job/*"]
        statements += [
            {"Sid": "Batch", "Effect": "Allow", "Action": list(BATCH), "Resource": jobs},
            {"Sid": "BatchData", "Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": [f"{bucket}/*"]},
            {"Sid": "BatchList", "Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [bucket]},
        ]  # fmt: skip
    return {"Version": "2012-10-17", "Statement": statements}


def invoke_statements(models: Sequence[ModelSpec], *, region: str, account: str = ACCOUNT) -> list[dict[str, Any]]:
    """The statements that allow calls of these models, in whole and as a stream.

    Raises:
        ConfigurationError: no models, or a profile whose Regions the catalogue does not know.
    """
    if not models:
        raise ConfigurationError(
            "A policy without models allows nothing.", advice="Name the models that may be called."
        )
    here, anywhere, profiles = list[str](), list[str](), list[str]()
    for spec in models:
        if spec.id == spec.base_id:
            here.append(_model_arn(region, spec))
            continue
        profile = f"arn:aws:bedrock:{region}:{account}:inference-profile/{spec.id}"
        here.append(profile)
        if spec.scope == "global":
            here.append(_model_arn(region, spec))
            anywhere.append(_model_arn("", spec))
            profiles.append(profile)
        elif spec.scope in spec.profile_regions:
            here += [_model_arn(each, spec) for each in spec.profile_regions[spec.scope]]
        else:
            raise ConfigurationError(
                f"The catalogue does not say in which Regions the profile {spec.id} is served.",
                advice=f"Add {spec.scope!r} to profile_regions in data/models.json; `aws bedrock get-inference-profile` lists them.",
            )
    allowed: list[dict[str, Any]] = [
        {"Sid": "CallModels", "Effect": "Allow", "Action": list(INVOKE), "Resource": _unique(here)}
    ]
    if anywhere:
        condition = {"aws:RequestedRegion": "unspecified", "bedrock:InferenceProfileArn": _unique(profiles)}
        allowed.append(
            {"Sid": "CallModelsAnywhere", "Effect": "Allow", "Action": list(INVOKE), "Resource": _unique(anywhere),
             "Condition": {"StringEquals": condition}}
        )  # fmt: skip
    return allowed


def _model_arn(region: str, spec: ModelSpec) -> str:
    return f"arn:aws:bedrock:{region}::foundation-model/{spec.base_id}"


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
