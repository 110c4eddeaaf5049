"""The least a role needs: the models in use, where they are served, the guardrail, and nothing with a star in its action."""

import json
from dataclasses import replace

import pytest

from workshop_lib import ConfigurationError
from workshop_lib.bedrock.catalogue import Catalogue
from workshop_lib.operations import iam_policy

WEST = "us-west-2"


def pair(scope="us"):
    catalogue = Catalogue.load(scope=scope)
    return [catalogue["cheap"], catalogue["strong"]]


def by_sid(document):
    return {s["Sid"]: s for s in document["Statement"]}


def test_a_profile_is_allowed_with_its_model_in_each_region_of_it():
    cheap, strong = pair()
    assert by_sid(iam_policy([cheap, strong], region=WEST))["CallModels"] == {
        "Sid": "CallModels",
        "Effect": "Allow",
        "Action": ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"],
        "Resource": [
            f"arn:aws:bedrock:{WEST}::foundation-model/{cheap.base_id}",
            f"arn:aws:bedrock:{WEST}:ACCOUNT_ID:inference-profile/{strong.id}",
            *(
                f"arn:aws:bedrock:{region}::foundation-model/{strong.base_id}"
                for region in ("us-east-1", "us-east-2", "us-west-2")
            ),
        ],
    }


def test_a_global_profile_is_allowed_without_a_region_through_itself_alone():
    _, strong = pair("global")
    anywhere = by_sid(iam_policy(pair("global"), region=WEST))["CallModelsAnywhere"]
    assert anywhere["Resource"] == [f"arn:aws:bedrock:::foundation-model/{strong.base_id}"]
    assert anywhere["Condition"]["StringEquals"] == {
        "aws:RequestedRegion": "unspecified",
        "bedrock:InferenceProfileArn": [f"arn:aws:bedrock:{WEST}:ACCOUNT_ID:inference-profile/{strong.id}"],
    }


@pytest.mark.parametrize("scope", ["us", "global"])
def test_no_action_and_no_model_is_a_wildcard_and_none_is_made_up(scope):
    document = iam_policy(pair(scope), region=WEST, guardrail="g1", batch_bucket="tickets")
    for statement in document["Statement"]:
        assert not any("*" in action for action in statement["Action"])
        assert not any("*" in arn for arn in statement["Resource"] if "foundation-model" in arn or "profile" in arn)
    assert "bedrock:Converse" not in json.dumps(document)


def test_the_guardrail_only_if_there_is_one():
    assert "ApplyGuardrail" not in by_sid(iam_policy(pair(), region=WEST))
    allowed = by_sid(iam_policy(pair(), region=WEST, account="111122223333", guardrail="g1"))["ApplyGuardrail"]
    assert allowed["Resource"] == [f"arn:aws:bedrock:{WEST}:111122223333:guardrail/g1"]
    arn = "arn:aws:bedrock:us-east-1:111122223333:guardrail/g1"
    assert by_sid(iam_policy(pair(), region=WEST, guardrail=arn))["ApplyGuardrail"]["Resource"] == [arn]


def test_counting_and_batch_jobs_only_if_asked_for():
    assert set(by_sid(iam_policy(pair(), region=WEST, count_tokens=False))) == {"CallModels"}
    jobs = by_sid(iam_policy(pair(), region=WEST, batch_bucket="tickets"))
    assert {"Batch", "BatchData", "BatchList", "CountTokens"} <= set(jobs)
    assert jobs["BatchList"]["Resource"] == ["arn:aws:s3:::tickets"]


def test_one_model_in_two_roles_is_named_once():
    catalogue = Catalogue.load()
    once = iam_policy([catalogue["cheap"]], region=WEST)
    assert iam_policy([catalogue["cheap"], catalogue["classifier"]], region=WEST) == once


def test_what_it_cannot_know_it_says():
    _, strong = pair()
    with pytest.raises(ConfigurationError, match="in which Regions"):
        iam_policy([replace(strong, profile_regions={})], region=WEST)
    with pytest.raises(ConfigurationError, match="allows nothing"):
        iam_policy([], region=WEST)
