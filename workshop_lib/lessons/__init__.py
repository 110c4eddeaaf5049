"""TEACHING: exercises and their checks, the doctor, and how the notebooks are built."""

from workshop_lib.lessons.checks import catch_up, check, hint, solution
from workshop_lib.lessons.doctor import examine

__all__ = ["catch_up", "check", "examine", "hint", "solution"]
