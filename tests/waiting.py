"""How tests wait for what another thread or process does: never for ever, and with a word on what did not come."""

import time
from collections.abc import Callable


def wait_until(met: Callable[[], object], what: str, *, within_s: float = 60, pause_s: float = 0.005) -> None:
    """Return once it is met, e.g. `wait_until(lambda: client.calls > 1, "the second call")`."""
    until = time.monotonic() + within_s
    while not met():
        assert time.monotonic() < until, f"{what}: not within {within_s:g} s"
        time.sleep(pause_s)
