"""The README: what it shows works as it stands."""

import json
import re
import shlex
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest
import uvicorn
from typer.main import get_command

from workshop_lib import Settings, Workshop
from workshop_lib.cli import app
from workshop_lib.service import create_app

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"(?s)```python\n(.*?)```", TEXT)


@pytest.mark.parametrize("program", PROGRAMS, ids=["the cascade", "a task of one's own", "many tickets", "an agent"])
def test_a_program_of_the_readme_runs(program, endpoint, monkeypatch, capsys):
    monkeypatch.setenv("WORKSHOP_ENDPOINT_URL", endpoint.url)  # nobody needs to wait for one of its own
    exec(program, {"__name__": "__main__"})
    assert capsys.readouterr().out


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_curl_examples_work_as_they_stand(endpoint, bedrock, catalogue):
    workshop = Workshop(Settings(endpoint_url=endpoint.url), catalogue, bedrock)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(workshop), log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    # Without a delay of its own curl waits twice as long each time: hours in all, where the service does not come or gives no answer.
    patience = ["--fail", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "--max-time", "30"]
    said = []
    try:
        for example in re.findall(r"(?s)```bash\n(curl .*?)```", TEXT):
            words = shlex.split(example.replace("\\\n", " ").replace(":8080", f":{listener.getsockname()[1]}"))
            done = subprocess.run([*words, *patience], capture_output=True, text=True, check=True, timeout=60)
            said.append(done.stdout)
    finally:
        server.should_exit = True
        thread.join(5)
    assert json.loads(said[0])["decision"]["category"] == "billing"
    assert said[1].startswith("event: tier-started")
    assert "event: finished" in said[1]
    assert {json.loads(line)["ticket_id"] for line in said[2].splitlines()} == {"T-1", "T-2"}


def test_every_command_of_the_readme_exists_and_none_is_left_out():
    named = {m[1] for m in re.finditer(r"`workshop ([a-z-]+)", TEXT)}
    assert named == set(get_command(app).commands) - {"build-embeddings"}


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    assert {m[1] for m in re.finditer(r"(?m)(?:^|`)make ([a-z]+)", TEXT)} <= targets


def test_the_two_commands_stand_at_the_top():
    assert TEXT.index("make demo") < TEXT.index("## The labs")
    assert "make test" in TEXT[: TEXT.index("## The labs")]


def test_every_setting_is_in_the_env_example():
    from workshop_lib.bedrock.settings import VARIABLES

    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    inside = {"WORKSHOP_DATA_DIR", "WORKSHOP_CACHE_DIR"}
    assert {name for name in VARIABLES if name not in example} == inside


def test_make_lab_opens_a_notebook_that_exists():
    opened = re.search(r"jupyter lab (\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"))[1]
    assert (ROOT / opened).is_file()
