"""What holds of every exercise in which a function is written, whichever lab it is in."""

from workshop_lib.lessons import check, hint, solution


def holds_for(number, right):
    """A right answer passes; an open one and one of another form are told; there are hints and a solution."""
    assert "Correct" in check(number, right).head
    assert "Not attempted" in check(number, lambda *a: None).head
    assert "Not attempted" in check(number, ...).head
    assert "raised" in check(number, lambda: None).head
    assert "Hint 1 of 3" in hint(number).head
    assert "def " in solution(number).code
