"""Which door, Region, pair and guardrail this session uses: read once from the environment and `.env`, then passed on.

settings = Settings.load()          # the environment wins over `.env`
settings = Settings(mode="live", region="us-west-2")
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workshop_lib.bedrock.errors import ConfigurationError

PROJECT = Path(__file__).resolve().parents[2]
VARIABLES = {
    "WORKSHOP_MODE": "mode",
    "WORKSHOP_PAIR": "pair",
    "WORKSHOP_PROFILE": "profile_scope",
    "WORKSHOP_TIME_SCALE": "time_scale",
    "WORKSHOP_ENDPOINT_URL": "endpoint_url",
    "WORKSHOP_WORKERS": "workers",
    "WORKSHOP_TOKENS_PER_MINUTE": "tokens_per_minute",
    "WORKSHOP_BUDGET_USD": "budget_usd",
    "WORKSHOP_DATA_DIR": "data_dir",
    "WORKSHOP_CACHE_DIR": "cache_dir",
    "AWS_PROFILE": "aws_profile",
    "AWS_DEFAULT_REGION": "region",
    "BEDROCK_GUARDRAIL_ID": "guardrail_id",
    "BEDROCK_GUARDRAIL_VERSION": "guardrail_version",
}


class Settings(BaseModel):
    """One session's settings. Frozen: make a changed copy with `model_copy(update=...)`."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    mode: Literal["local", "live"] = "local"
    """The door. Live calls cost money, so `live` must be asked for: credentials alone never choose it."""
    pair: str | None = None
    """Which pair of the catalogue the roles cheap, strong, judge and classifier mean; None: the catalogue's default."""
    profile_scope: Literal["us", "global"] = "us"
    """Which inference profile is called where a model needs one: `us.` stays in the geography and costs 10 % more."""
    region: str | None = None
    """AWS Region; None: what the AWS configuration says (live), us-west-2 (local)."""
    aws_profile: str | None = None
    """Named profile of the AWS configuration; None: the default credential chain."""
    endpoint_url: str | None = None
    """A Bedrock endpoint that already runs; None: Bedrock itself (live), an endpoint of our own (local)."""
    time_scale: float = Field(default=0.05, ge=0, le=10)
    """The share of a simulated latency that the local endpoint really waits."""
    workers: int = Field(default=8, ge=1, le=256)
    """Calls in flight at once."""
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """What this session keeps to of the strong model's quota, in quota tokens; None: as much as the service lets it have. For a
    room that shares one quota, where each takes a share. `Bedrock.converse` waits for its turn; `stream` does not."""
    budget_usd: float | None = Field(default=None, ge=0)
    """Spending limit in USD of a `workshop bulk` that names no other; None: no limit."""
    guardrail_id: str | None = None
    guardrail_version: str | None = None
    """Attached to every call when both are set; a numbered version, not DRAFT, for anything but a trial."""
    data_dir: Path = PROJECT / "data"
    cache_dir: Path = PROJECT / ".cache"
    """Where the local models keep the embeddings of their training tickets."""

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, env_file: Path | None = None) -> Settings:
        """Read the settings; the environment wins over `.env` in the project's folder. Empty values count as unset.

        Args:
            environ: the environment to read; None: the process's.
            env_file: the `.env` to read; None: `.env` beside README.md. It need not exist.

        Raises:
            ConfigurationError: a value is not usable, or `.env` holds a WORKSHOP_ name that does not exist.
        """
        from dotenv import dotenv_values

        environ = os.environ if environ is None else environ
        file = PROJECT / ".env" if env_file is None else env_file
        try:
            from_file = {k: v or "" for k, v in dotenv_values(file).items()} if file.is_file() else {}
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{file.name} cannot be read: {error}.") from error
        for name in from_file:
            if name.startswith("WORKSHOP_") and name not in VARIABLES:
                ours = {v.removeprefix("WORKSHOP_"): v for v in VARIABLES if v.startswith("WORKSHOP_")}
                close = difflib.get_close_matches(name.removeprefix("WORKSHOP_"), ours, n=1)
                hint = f" Did you mean {ours[close[0]]}?" if close else ""
                raise ConfigurationError(f"{file.name} sets {name}, which this version does not know.{hint}")
        given = {name: environ.get(name) or from_file.get(name) or "" for name in VARIABLES}
        try:
            return cls.model_validate({VARIABLES[k]: v for k, v in given.items() if v})
        except ValidationError as error:
            first = error.errors()[0]
            name = next(k for k, v in VARIABLES.items() if v == first["loc"][0])
            raise ConfigurationError(f"{name}={given[name]!r} cannot be used: {first['msg']}.") from None

    @property
    def guardrail(self) -> dict[str, str] | None:
        """`guardrailConfig` for every call, or None.

        Raises:
            ConfigurationError: only one of id and version is set.
        """
        if not self.guardrail_id and not self.guardrail_version:
            return None
        if not (self.guardrail_id and self.guardrail_version):
            raise ConfigurationError("BEDROCK_GUARDRAIL_ID and BEDROCK_GUARDRAIL_VERSION must be set together.")
        return {
            "guardrailIdentifier": self.guardrail_id,
            "guardrailVersion": self.guardrail_version,
            "trace": "enabled",
        }
