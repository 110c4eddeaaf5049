"""Settings: the environment before `.env`, and a name for every mistake."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.bedrock.settings import VARIABLES, Settings


@pytest.fixture
def load(tmp_path):
    def load(env_file: str = "", **environ: str) -> Settings:
        file = tmp_path / ".env"
        file.write_text(env_file, encoding="utf-8")
        return Settings.load(environ, file)

    return load


def test_nothing_set_means_the_local_door(load):
    settings = load()
    assert settings == Settings()
    assert (settings.mode, settings.pair, settings.profile_scope) == ("local", None, "us")


def test_credentials_alone_do_not_choose_the_live_door(load):
    assert load(AWS_ACCESS_KEY_ID="AKIA", AWS_SECRET_ACCESS_KEY="x", AWS_PROFILE="dev").mode == "local"


def test_a_missing_file_is_no_mistake(tmp_path):
    assert Settings.load({}, tmp_path / "nothing") == Settings()


def test_the_file_is_read(load):
    settings = load("WORKSHOP_MODE=live\nAWS_DEFAULT_REGION='us-east-1'\n# a remark\n")
    assert (settings.mode, settings.region) == ("live", "us-east-1")


def test_the_environment_wins_over_the_file(load):
    assert load("WORKSHOP_WORKERS=3\nWORKSHOP_MODE=live", WORKSHOP_WORKERS="5").workers == 5


@pytest.mark.parametrize("value", ["", None])
def test_an_empty_value_counts_as_unset(load, value):
    line = "WORKSHOP_MODE" if value is None else "WORKSHOP_MODE="
    assert load(line).mode == "local"


def test_an_empty_variable_leaves_the_file_its_say(load):
    assert load("WORKSHOP_MODE=live", WORKSHOP_MODE="").mode == "live"


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("WORKSHOP_MODES", "WORKSHOP_MODE"), ("WORKSHOP_WORKER", "WORKSHOP_WORKERS")],
)  # fmt: skip
def test_an_unknown_name_in_the_file_suggests_the_close_one(load, wrong, meant):
    with pytest.raises(ConfigurationError, match=rf"{wrong}, which .* Did you mean {meant}\?"):
        load(f"{wrong}=1")


def test_an_unknown_name_that_is_close_to_nothing_is_only_refused(load):
    with pytest.raises(ConfigurationError) as refused:
        load("WORKSHOP_FAVOURITE_COLOUR_OF_THE_YEAR=1")
    assert "Did you mean" not in refused.value.message


def test_names_of_other_programs_are_left_alone(load):
    assert load("DATABASE_URL=x\nAWS_REGION=eu-west-1") == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKSHOP_MODE", "lokal"),
        ("WORKSHOP_PROFILE", "eu"),
        ("WORKSHOP_TIME_SCALE", "-1"),
        ("WORKSHOP_TIME_SCALE", "fast"),
        ("WORKSHOP_WORKERS", "0"),
        ("WORKSHOP_WORKERS", "2.5"),
    ],
)
def test_a_bad_value_names_its_variable(load, name, value):
    with pytest.raises(ConfigurationError, match=f"{name}='{value}' cannot be used"):
        load(**{name: value})


def test_a_file_that_is_not_text_is_a_configuration_error(tmp_path):
    file = tmp_path / ".env"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match=r"\.env cannot be read"):
        Settings.load({}, file)


def test_every_variable_is_a_field():
    assert set(VARIABLES.values()) == set(Settings.model_fields)


def test_settings_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        Settings().mode = "live"


def test_a_misspelt_setting_is_refused():
    with pytest.raises(ValidationError, match="regoin"):
        Settings(regoin="us-west-2")


def test_without_a_guardrail_none_is_attached():
    assert Settings().guardrail is None


def test_a_guardrail_is_attached_with_its_trace(load):
    settings = load(BEDROCK_GUARDRAIL_ID="workshop", BEDROCK_GUARDRAIL_VERSION="1")
    assert settings.guardrail == {"guardrailIdentifier": "workshop", "guardrailVersion": "1", "trace": "enabled"}


@pytest.mark.parametrize("name", ["BEDROCK_GUARDRAIL_ID", "BEDROCK_GUARDRAIL_VERSION"])
def test_half_a_guardrail_is_refused(load, name):
    with pytest.raises(ConfigurationError, match="must be set together"):
        load(**{name: "1"}).guardrail  # noqa: B018  # the property raises
