"""TEACHING: exercises and their checks, the doctor, and how the notebooks are built."""

from workshop_lib.lessons.checks import check, hint, solution
from workshop_lib.lessons.doctor import examine
from workshop_lib.lessons.latecomers import catch_up

__all__ = ["catch_up", "check", "examine", "hint", "solution"]
