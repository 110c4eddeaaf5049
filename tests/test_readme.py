"""The README: what it shows works as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from workshop_lib.cli import app

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"(?s)```python\n(.*?)```", TEXT)


@pytest.mark.parametrize("program", PROGRAMS, ids=["the cascade", "a task of one's own"])
def test_a_program_of_the_readme_runs(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout


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
