"""Opens the workshop: settings, catalogue and client in one hand, with the local endpoint started if the door is local.

workshop = open_workshop()
workshop.triage(ticket, model="strong").decision
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from workshop_lib.bedrock.catalogue import Catalogue
from workshop_lib.bedrock.client import Bedrock, set_default_client
from workshop_lib.bedrock.settings import Settings
from workshop_lib.cascade.attempt import Attempt, Tier, attempt
from workshop_lib.triage.schema import Decision
from workshop_lib.triage.task import TRIAGE, Task

if TYPE_CHECKING:
    from workshop_lib.local.server import LocalEndpoint


@dataclass(frozen=True)
class Workshop:
    """One session. Close it with `close()`, or use it as a context manager."""

    settings: Settings
    catalogue: Catalogue
    bedrock: Bedrock
    endpoint: LocalEndpoint | None = None
    """The local endpoint that was started for this session, with its journal and faults; None at the live door."""

    @property
    def endpoint_url(self) -> str | None:
        """Where calls go; None: Bedrock's own address for the Region."""
        return self.settings.endpoint_url

    @property
    def door(self) -> str:
        """One line on where the answers come from and what its figures mean."""
        pair = f"cheap = {self.catalogue['cheap'].label}, strong = {self.catalogue['strong'].label}"
        if self.settings.mode == "live":
            return f"Live door: Amazon Bedrock, {self.settings.region or 'default Region'}; {pair}. Every call costs money."
        return (
            f"Local door: small trained models stand in for {pair}. Their answers and errors are real, but they are not these "
            "models; tokens are counted and priced as if they were; latencies are drawn from the catalogue, not measured."
        )

    def triage(self, item: Any, *, model: str = "strong", task: Task[Any] = TRIAGE) -> Attempt[Decision]:
        """Ask one model about one ticket. Failures are recorded in the attempt, not raised.

        Raises:
            UnknownModel: there is no such role or key.
        """
        return attempt(item, Tier(model), task=task, client=self.bedrock)

    def close(self) -> None:
        """Close connections and stop the local endpoint."""
        set_default_client(self.bedrock, opened=False)
        self.bedrock.close()
        if self.endpoint is not None:
            self.endpoint.stop()

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def open_workshop(settings: Settings | None = None) -> Workshop:
    """Open a session by the door that the settings name.

    Args:
        settings: None reads the environment and `.env`.

    Raises:
        ConfigurationError: settings, catalogue or local models are not usable.
    """
    settings = settings or Settings.load()
    path = settings.data_dir / "models.json"
    catalogue = Catalogue.load(path, pair=settings.pair, scope=settings.profile_scope)
    endpoint = None
    if settings.mode == "local" and settings.endpoint_url is None:
        from workshop_lib.local.server import LocalEndpoint  # only this door needs a server and models

        endpoint = LocalEndpoint(
            catalogue, time_scale=settings.time_scale, data_dir=settings.data_dir, cache_dir=settings.cache_dir
        ).start()
        settings = settings.model_copy(update={"endpoint_url": endpoint.url})
    patience_s = 60 if settings.mode == "live" else 300  # the first call of all trains the small models
    bedrock = Bedrock(settings, catalogue, read_timeout_s=patience_s, stand_ins=_stand_ins(settings))
    set_default_client(bedrock, opened=True)
    return Workshop(settings, catalogue, bedrock, endpoint)


def door_of(settings: Settings, catalogue: Catalogue) -> dict[str, str]:
    """What answers depend on beside model and prompt, without opening the door: a replay is held against it.

    Raises:
        ConfigurationError: the training tickets of the local models are missing.
    """
    return Bedrock(settings, catalogue, stand_ins=_stand_ins(settings)).door


def _stand_ins(settings: Settings) -> str:
    if settings.mode == "live":
        return ""
    from workshop_lib.local.models.trained import identity  # only this door has models

    return identity(settings.data_dir)
