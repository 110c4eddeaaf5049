"""What a notebook must keep to be read, run and compared well. One generator a rule; each yields what it found."""

import ast
import html
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

MAX_CODE_LINES, MAX_MEDIAN_LINES, MAX_WORDS, MAX_SETUP_LINES = 25, 4, 220, 9
SAYS_NOTHING = {"here", "this", "link", "click here", "this link"}


class Notebook:
    def __init__(self, path: Path) -> None:
        raw = json.loads(path.read_text(encoding="utf-8"))
        self.name, self.cells, self.metadata = path.name, raw["cells"], raw["metadata"]
        self.solved = path.parent.name == "solutions"
        self.prose = [(i, source(c)) for i, c in enumerate(self.cells) if c["cell_type"] == "markdown"]
        self.code = [(i, source(c), c) for i, c in enumerate(self.cells) if c["cell_type"] == "code"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"(?ms)^```.*?^```", "", text))


def headings(nb: Notebook) -> Iterator[str]:
    found = [(i, len(m[1])) for i, text in nb.prose for m in re.finditer(r"(?m)^(#{1,6}) \S", without_code(text))]
    if [level for _, level in found].count(1) != 1 or found[0] != (0, 1):
        yield "one # heading, in the first cell"
    yield from (f"cell {i}: level skipped" for (_, a), (i, b) in pairwise(found) if b > a + 1)


def opening(nb: Notebook) -> Iterator[str]:
    first = nb.prose[0][1]
    for promise in ("**What you'll do", "**What you'll learn", "**What you'll need", "Minutes:", "→"):
        if promise not in first:
            yield f"the first cell lacks {promise}"


def closing(nb: Notebook) -> Iterator[str]:
    end = "\n".join(text for _, text in nb.prose[-2:])
    for promise in ("## What you did", "**On your own", "**In practice"):
        if promise not in end:
            yield f"the end lacks {promise}"


def setup_cell(nb: Notebook) -> Iterator[str]:
    first = nb.code[0][1]
    if "open_workshop()" not in first or "door_line" not in first:
        yield "the first code cell opens the workshop and shows its door"
    if len(first.splitlines()) > MAX_SETUP_LINES:
        yield f"the setup cell has over {MAX_SETUP_LINES} lines"


def alt_text(nb: Notebook) -> Iterator[str]:
    for i, text in nb.prose:
        if re.search(r"!\[\s*\]\(", text):
            yield f"cell {i}: picture without alt text"
    for i, _, cell in nb.code:
        for output in cell["outputs"]:
            if "image/png" in output.get("data", {}):
                yield f"cell {i}: a bare image, whose alt text JupyterLab drops"
            for tag in re.findall(r"<img[^>]*>", "".join(output.get("data", {}).get("text/html", ""))):
                if not re.search(r'alt="[^"]{20,}"', tag):
                    yield f"cell {i}: image without words"


def dollars(nb: Notebook) -> Iterator[str]:
    for i, text in nb.prose:
        for block in re.split(r"\n\s*\n", without_code(text)):
            if len(re.findall(r"(?<!\\)\$", block)) >= 2:
                yield f"cell {i}: two $ in one block become mathematics"
    for i, _, cell in nb.code:
        for output in cell["outputs"]:
            markup = "".join(output.get("data", {}).get("text/html", ""))
            if markup.count("$") >= 2 and "mathjax_ignore" not in markup:
                yield f"cell {i}: two $ in an HTML output become mathematics"


def links(nb: Notebook) -> Iterator[str]:
    for i, text in nb.prose:
        for words, target in re.findall(r"(?<!!)\[([^\]]+)\]\(([^)]+)\)", without_code(text)):
            if words.strip().lower() in SAYS_NOTHING:
                yield f"cell {i}: link text says nothing"
            if "://" in target:
                yield f"cell {i}: a link that leaves the project"


def admonitions(nb: Notebook) -> Iterator[str]:
    for i, text in nb.prose:
        if re.search(r"(?m)^> \[!|^:::|^\[\^", without_code(text)):
            yield f"cell {i}: JupyterLab does not draw GitHub alerts, ::: blocks or footnotes"


def lengths(nb: Notebook) -> Iterator[str]:
    lines = []
    for i, text, _ in nb.code:
        count = sum(
            bool(line.strip()) and not line.startswith(("#:", "# BEGIN", "# END")) for line in text.splitlines()
        )
        lines.append(count)
        if not count or count > MAX_CODE_LINES:
            yield f"cell {i}: {count} lines of code"
    if sorted(lines)[len(lines) // 2] > MAX_MEDIAN_LINES:
        yield f"median cell has {sorted(lines)[len(lines) // 2]} lines"
    yield from (f"cell {i}: {len(t.split())} words" for i, t in nb.prose if len(t.split()) > MAX_WORDS or not t.strip())


def plain_code(nb: Notebook) -> Iterator[str]:
    for i, text, _ in nb.code:
        if re.search(r"except.*:\s*\n\s+(print|pass)", text):
            yield f"cell {i}: an error is printed or passed over"
        if re.search(r"^[%!]", text, re.M):
            yield f"cell {i}: a magic or a shell command"
        if re.search(r"sys\.path|os\.environ", text):
            yield f"cell {i}: touches the path or the environment"
        if re.search(r"\bif\b.*\b(mode|offline|endpoint)\b", text):
            yield f"cell {i}: asks which door it is in"
        for line in text.splitlines():
            words = line.strip().removeprefix("# ")
            if line.strip().startswith("# ") and re.search(r"[=(]", words) and parses(words):
                yield f"cell {i}: commented-out code"


def parses(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def words_before_code(nb: Notebook) -> Iterator[str]:
    for i, _, _ in nb.code:
        if i == 0 or (nb.cells[i - 1]["cell_type"] != "markdown" and nb.cells[i - 2]["cell_type"] != "markdown"):
            yield f"cell {i}: two code cells in a row without a word"


def secrets(nb: Notebook) -> Iterator[str]:
    for i, text, cell in nb.code:
        seen = text + json.dumps(cell["outputs"])
        if re.search(
            r"\b(AKIA|ASIA)[A-Z0-9]{16}\b|arn:aws:[a-z-]+:[a-z0-9-]*:(?!0{12})\d{12}|sk-ant-|/(?:home|Users|root)/|File [~/]|site-packages",
            seen,
        ):
            yield f"cell {i}: an account, a key or somebody's path"


def outputs(nb: Notebook) -> Iterator[str]:
    counts = [cell["execution_count"] for _, _, cell in nb.code]
    if nb.solved and counts != list(range(1, len(counts) + 1)):
        yield "not run from top to bottom"
    for i, _, cell in nb.code:
        tags = cell["metadata"].get("tags", [])
        if not nb.solved and (cell["outputs"] or cell["execution_count"] is not None):
            yield f"cell {i}: a learner's copy holds an output"
        if any(o["output_type"] == "error" for o in cell["outputs"]) and "raises-exception" not in tags:
            yield f"cell {i}: a saved error"
        if any("widget" in key for o in cell["outputs"] for key in o.get("data", {})):
            yield f"cell {i}: a saved widget shows nothing outside Jupyter"


def tidy(nb: Notebook) -> Iterator[str]:
    if set(nb.metadata) != {"kernelspec", "language_info"} or nb.metadata["kernelspec"]["name"] != "python3":
        yield "metadata of somebody's own"
    ids = [c["id"] for c in nb.cells]
    if len(set(ids)) < len(ids) or not all(re.fullmatch(rf"{nb.name[:2]}-\d+", i) for i in ids):
        yield "cell ids are NN-number, each once"


def exercises(nb: Notebook) -> Iterator[str]:
    for i, text, cell in nb.code:
        tags = set(cell["metadata"].get("tags", []))
        marked = bool(re.search(r'(?m)^check\("', text))
        if marked != bool(tags & {"solution", "exercise"}):
            yield f"cell {i}: an exercise cell is tagged and ends in check(...)"
        if nb.solved and marked:
            said = html.unescape(json.dumps(cell["outputs"], ensure_ascii=False))
            if "Correct" not in said:
                yield f"cell {i}: the solution is not found correct"


RULES = [
    headings, opening, closing, setup_cell, alt_text, dollars, links, admonitions, lengths, plain_code,
    words_before_code, secrets, outputs, tidy, exercises,
]  # fmt: skip
