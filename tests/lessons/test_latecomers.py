"""Whoever begins at a later lab: gets it unspoilt, loses nothing of their own, and is told what the others have done."""

import json
import shutil
from pathlib import Path

import pytest

from workshop_lib.lessons import catch_up
from workshop_lib.lessons.latecomers import NOTEBOOKS

LABS = sorted(path.stem[:2] for path in (NOTEBOOKS / "solutions").glob("[0-9][0-9]_*.ipynb"))


@pytest.fixture
def room(tmp_path):
    """A folder of notebooks like the project's: `catch_up` in it, and where things are."""

    class Room:
        notebooks, work = tmp_path / "notebooks", tmp_path / "work"

        def catch_up(self, lab: str):
            return catch_up(lab, notebooks=self.notebooks, work=self.work, train=False)

        def spoil(self, path: Path) -> str:
            raw = json.loads(path.read_text(encoding="utf-8"))
            raw["cells"][3]["source"] = "my own work"
            path.write_text(json.dumps(raw), encoding="utf-8")
            return path.read_text(encoding="utf-8")

    shutil.copytree(NOTEBOOKS, Room.notebooks)
    return Room()


@pytest.mark.parametrize("lab", LABS)
def test_any_lab_can_be_the_first(lab):
    said = repr(catch_up(lab, train=False))
    assert f"Lab {lab}: it needs nothing from earlier labs" in said
    assert f"/{lab}_" in said


@pytest.mark.parametrize("lab", LABS)
def test_every_earlier_lab_is_named_with_what_was_done_in_it(lab):
    blocks = catch_up(lab, train=False).code.split("\n\n")[1:]
    assert [block[:2] for block in blocks] == [other for other in LABS if other < lab]
    assert all("\n- You " in block for block in blocks)


def test_a_lab_that_helps_is_pointed_out():
    assert "(04 helps: read its end)" in repr(catch_up("5", train=False))


def test_a_notebook_as_it_was_shipped_is_used_where_it_is(room):
    assert "Open notebooks/02_" in repr(room.catch_up("02"))
    assert not room.work.exists()


def test_a_notebook_that_was_only_run_counts_as_it_was_shipped(room):
    path = next(room.notebooks.glob("02_*"))
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw["cells"][1]["execution_count"] = 1
    path.write_text(json.dumps(raw), encoding="utf-8")
    assert "Open notebooks/02_" in repr(room.catch_up("02"))


def test_own_work_stays_and_a_fresh_copy_stands_beside_it(room):
    path = next(room.notebooks.glob("02_*"))
    mine = room.spoil(path)
    assert f"Open work/{path.name}" in repr(room.catch_up("2"))
    assert path.read_text(encoding="utf-8") == mine
    again = room.spoil(room.work / path.name)
    assert "Open work/02_let_the_cheap_model_go_first_2.ipynb" in repr(room.catch_up("2"))
    assert (room.work / path.name).read_text(encoding="utf-8") == again


def test_a_notebook_that_was_deleted_comes_back(room):
    path = next(room.notebooks.glob("02_*"))
    wanted = path.read_text(encoding="utf-8")
    path.unlink()
    room.catch_up("02")
    assert path.read_text(encoding="utf-8") == wanted


def test_a_lab_that_does_not_exist_is_told_with_those_that_do():
    assert "there is no lab 77; the labs are 00, 01" in repr(catch_up("77"))


def test_the_small_models_are_ready_afterwards(monkeypatch):
    from workshop_lib.lessons import latecomers

    trained = []
    monkeypatch.setattr(latecomers, "_train", trained.append)
    catch_up("01")
    assert [settings.mode for settings in trained] == ["local"]
