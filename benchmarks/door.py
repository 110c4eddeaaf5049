"""Where the benchmarks' calls go: a local endpoint in a process of its own, so that time and memory of who calls are theirs alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def serve(time_scale: float, **environ: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`workshop serve`, with more in its environment; gives its address and its process."""
    command = [sys.executable, "-m", "workshop_lib", "serve", "--port", "0", "--time-scale", str(time_scale)]
    env = {**os.environ, "COLUMNS": "200", **environ}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    try:
        yield re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())[0], server  # type: ignore[index,union-attr]
    finally:
        server.terminate()
        server.wait(10)


def ask(url: str, path: str, body: Any = None, method: str = "GET") -> Any:
    """The endpoint's own controls."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url + path, data=data, method=method), timeout=60) as response:
        return json.load(response)
