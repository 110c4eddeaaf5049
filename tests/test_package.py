"""The package as a whole: light to import, free of side effects, layered."""

import ast
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

import workshop_lib

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "workshop_lib"
# Each line may import from the lines above it, and from itself.
LAYERS = (
    ("bedrock",),
    ("embedding",),
    ("triage",),
    ("cascade",),
    ("bulk",),
    ("evaluation",),
    ("shop",),
    ("operations",),
    ("monitoring",),
    ("tracing",),
    ("workshop",),
    ("service",),
    ("agentcore",),
    ("deployment",),
    ("display",),
    ("lessons",),
    ("cli", "__main__"),
)
# The local door stands beside them: it reads the catalogue, the task, the shop and the data; only these may open it.
LOCAL_MAY_IMPORT = {"bedrock", "embedding", "triage", "shop", "local"}
MAY_IMPORT_LOCAL = {"local", "workshop", "lessons", "cli"}


@functools.cache
def imports_of(path):
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module]
            found += [f"{node.module}.{alias.name}" for alias in node.names if node.module == "workshop_lib"]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return found


def parts():
    return [(path, path.relative_to(PACKAGE).parts[0].removesuffix(".py")) for path in sorted(PACKAGE.rglob("*.py"))]


def test_every_module_imports_only_from_the_layers_above_it():
    level = {name: i for i, names in enumerate(LAYERS) for name in names}
    wrong = []
    for path, part in parts():
        for module in imports_of(path):
            if not module.startswith("workshop_lib.") or part == "__init__":
                continue
            target = module.split(".")[1]
            if target == "local" or part == "local":
                allowed = target in LOCAL_MAY_IMPORT if part == "local" else part in MAY_IMPORT_LOCAL
            else:
                allowed = level[target] <= level[part]
            if not allowed:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong


@pytest.mark.parametrize("package", ["IPython", "ipywidgets", "matplotlib"])
def test_only_display_imports_what_draws(package):
    users = {part for path, part in parts() for module in imports_of(path) if module.split(".")[0] == package}
    assert users <= {"display"}


def test_no_model_id_stands_anywhere_but_in_the_catalogue():
    catalogue = json.loads((ROOT / "data" / "models.json").read_text(encoding="utf-8"))
    ids = {m["base_id"] for m in catalogue["models"].values()}
    texts = {p: p.read_text(encoding="utf-8") for p in [*PACKAGE.rglob("*.py"), *(ROOT / "notebooks").glob("*.ipynb")]}
    assert not [(str(p), i) for p, text in texts.items() for i in ids if i in text]


def test_importing_starts_nothing_and_changes_nothing():
    program = (
        "import os, sys, threading; before = dict(os.environ); import workshop_lib; "
        "assert dict(os.environ) == before; assert threading.active_count() == 1; "
        "heavy = {'boto3', 'sklearn', 'onnxruntime', 'pandas', 'matplotlib', 'IPython', 'ipywidgets', 'starlette', 'uvicorn', 'numpy', 'fastapi', 'pyarrow', 'filelock', 'opentelemetry', 'bedrock_agentcore', 'strands', 'requests', 'dask', 'distributed', 'bokeh'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_every_exported_name_exists_once():
    assert all(hasattr(workshop_lib, name) for name in workshop_lib.__all__)
    assert len(set(workshop_lib.__all__)) == len(workshop_lib.__all__) <= 40


def test_no_committed_file_names_a_package_registrys_host():
    lock = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert "://" not in lock
    assert "--index-url" not in lock
    assert lock.rstrip().endswith("-e .")
