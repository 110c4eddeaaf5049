"""The rubric is read from where it is written, and nowhere else."""

import pytest

from workshop_lib import ConfigurationError
from workshop_lib.triage import Category, Priority
from workshop_lib.triage.rubric import load_rubric


def test_every_category_and_priority_has_its_definition():
    rubric = load_rubric()
    assert set(rubric.categories) == set(Category)
    assert list(rubric.priorities) == list(Priority)
    assert all(map(str.strip, [*rubric.categories.values(), *rubric.priorities.values()]))


def test_categories_come_in_order_of_precedence():
    assert list(load_rubric().categories)[:2] == [Category.ABUSE, Category.BILLING]


def test_the_whole_text_and_its_version_are_at_hand():
    rubric = load_rubric()
    assert rubric.version == "triage-rubric-1"
    assert "Urgent!!!" in rubric.markdown
    assert "kappa" not in rubric.markdown


@pytest.mark.parametrize("text", [None, "# Data\n", "## The rubric (r-1)\n\n| P0 | now |\n"])
def test_a_file_without_the_rubric_is_named(tmp_path, text):
    if text is not None:
        (tmp_path / "README.md").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"rubric cannot be read from .*README\.md"):
        load_rubric(tmp_path)
