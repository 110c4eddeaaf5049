"""How the notebooks are made: solved ones are the source, learners' copies are built from them, outputs are rendered the same each time.

In a solved notebook the answer to an exercise stands between `# BEGIN SOLUTION` and `# END SOLUTION` in a cell tagged `solution`;
the lines that start with `#:` just above are what the learner gets instead. Cells tagged `solution-only` are left out.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.bedrock.settings import PROJECT

FOLDER = PROJECT / "notebooks"
_SOLUTION = re.compile(r"(?m)^(?P<starter>(?:#:.*\n)+)# BEGIN SOLUTION\n.*?^# END SOLUTION\n?", re.S)
_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def solved() -> list[Path]:
    """The solved notebooks, in order."""
    return sorted((FOLDER / "solutions").glob("[0-9][0-9]_*.ipynb"))


def build(*, write: bool = True) -> list[Path]:
    """Build every learner's copy; returns those that were stale.

    Args:
        write: False only looks.
    """
    import nbformat

    stale = []
    for path in solved():
        target = FOLDER / path.name
        wanted = nbformat.writes(learner_copy(nbformat.read(path, 4))) + "\n"
        if not target.is_file() or target.read_text(encoding="utf-8") != wanted:
            stale.append(target)
            if write:
                target.write_text(wanted, encoding="utf-8", newline="\n")
    return stale


def learner_copy(notebook: Any) -> Any:
    """A copy without outputs, with open exercises.

    Raises:
        ConfigurationError: a cell tagged `solution` has not exactly one marked solution.
    """
    made = copy.deepcopy(notebook)
    made.cells = [cell for cell in made.cells if "solution-only" not in cell.metadata.get("tags", [])]
    for cell in made.cells:
        tags = [tag for tag in cell.metadata.get("tags", []) if tag != "nbval-check-output"]
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "solution" in tags:
            cell.source, found = _SOLUTION.subn(_starter, cell.source + "\n")
            cell.source = cell.source.rstrip("\n")
            if found != 1:
                raise ConfigurationError(
                    f"Cell {cell.id} holds {found} marked solutions.",
                    advice="It needs one: #: starter lines, # BEGIN SOLUTION, the answer, # END SOLUTION.",
                )
            tags = ["exercise" if tag == "solution" else tag for tag in tags]
        cell.metadata = {"tags": tags} if tags else {}
    made.metadata = _METADATA
    return made


def render(path: Path) -> None:
    """Run a solved notebook and save it with its outputs: a second run changes no byte unless a result changed.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, 4)
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        # A live widget shows nothing once its kernel is gone; what should stay readable is shown another way.
        cell.outputs = [o for o in cell.outputs if "application/vnd.jupyter.widget-view+json" not in o.get("data", {})]
        for output in cell.outputs:
            if output.output_type == "error":  # the frames hold paths of this machine; what it says is enough
                output.traceback = [f"{output.ename}: {output.evalue}"]
        if "check(" in cell.source and "solution" in cell.metadata.get("tags", []):
            cell.metadata["tags"] = sorted({*cell.metadata["tags"], "nbval-check-output"})
    notebook.metadata = _METADATA
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")


def _starter(match: re.Match[str]) -> str:
    return "".join(re.sub(r"^#: ?", "", line) + "\n" for line in match["starter"].splitlines())
