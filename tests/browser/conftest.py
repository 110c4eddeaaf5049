"""The notebooks as an attendee sees them: JupyterLab on a copy of them, and a headless Chromium that opens it.

nb = lab("02_let_the_cheap_model_go_first.ipynb")     # open, with an idle kernel
nb.follow(".some-class")                              # remember every text that it will show
nb.run_all()
nb.story(".some-class")                               # those texts, in order

All fixtures end with the module that uses them: playwright keeps an event loop in this thread, and no other test should meet it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
PATIENCE = 150  # seconds for any one thing; on an idle machine the longest needs a fifth of it
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
SHORTHANDS = """
window.notebook = () => window.jupyterapp?.shell.currentWidget?.content
window.code = () => notebook().widgets.map(c => c.model).filter(m => m.type === 'code' && m.sharedModel.source.trim())
window.kernel = () => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel
"""
LAB_SETTINGS = {
    # A windowed notebook drops the cells that are out of view from the page, and with them what they show.
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
}


@dataclass(frozen=True)
class Server:
    """A JupyterLab that runs."""

    url: str
    token: str
    notebooks: Path
    """The copy of the notebooks that it shows."""

    def ask(self, path: str, body: Any = None) -> Any:
        """GET a path of its REST API, or POST a body to it."""
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)


@dataclass
class LabPage:
    """One notebook, open in JupyterLab. Parts of it are named by CSS selectors; `cell` makes the selector of a cell."""

    page: Any
    widget: str
    """The id of its tab: all notebooks are on one page, since each load of JupyterLab takes several seconds of a processor."""
    errors: list[str]
    """What JavaScript raised on the page and nobody caught."""

    @property
    def all(self) -> str:
        """The selector of the whole notebook."""
        return f"#{self.widget} .jp-Notebook"

    def show(self) -> None:
        """Bring its tab to the front: what is behind it can be read, but neither clicked nor run."""
        self.page.evaluate("id => jupyterapp.shell.activateById(id)", self.widget)
        self.wait_until("id => jupyterapp.shell.currentWidget?.id === id", self.widget)

    def cell(self, source: str) -> str:
        """The selector of the one cell whose source contains these characters; its tab comes to the front."""
        return f"{self.all} .jp-Cell[data-windowed-list-index='{self._index(source)}']"

    def output(self, source: str) -> str:
        """The selector of the outputs of that cell."""
        return f"{self.cell(source)} .jp-OutputArea-output"

    def run_all(self) -> None:
        """Run every cell, with nothing left of an earlier run, and wait until the last one is done."""
        self.show()
        self._command("notebook:clear-all-cell-outputs")
        self._command("notebook:run-all-cells")

    def run(self, *sources: str) -> None:
        """Run single cells, one after the other."""
        for source in sources:
            self.page.evaluate("i => { notebook().activeCellIndex = i }", self._index(source))
            self._command("notebook:run-cell")

    def not_run(self) -> list[str]:
        """Cells of code that were not run to their end."""
        self.show()
        return list(self.page.evaluate("() => code().filter(m => !m.executionCount).map(m => m.sharedModel.source)"))

    def complaints(self) -> list[str]:
        """Tracebacks that their cell does not promise, and all that was written to stderr."""
        self.show()
        cells = self.page.evaluate("() => code().map(m => [m.getMetadata('tags') ?? [], m.outputs.toJSON()])")
        found = []
        for tags, outputs in cells:
            if "raises-exception" not in tags:
                found += ["\n".join(o["traceback"]) for o in outputs if o["output_type"] == "error"]
            found += ["".join(o["text"]) for o in outputs if o.get("name") == "stderr"]
        return found

    def text(self, selector: str) -> str:
        """What is to be read there, once it is there. Run All scrolls away from it: it need not be in view."""
        there = self.page.locator(selector).first
        there.wait_for(state="attached")
        return str(there.inner_text())

    def follow(self, selector: str) -> None:
        """Remember every text that the first element of this selector shows from now on."""
        self.page.evaluate(
            """([all, selector]) => { const told = (window.stories ??= {})[selector] = [];
            const look = () => { const text = document.querySelector(selector)?.textContent;
                                 if (text && text !== told.at(-1)) told.push(text) };
            new MutationObserver(look).observe(
                document.querySelector(all), {subtree: true, childList: true, characterData: true}) }""",
            [self.all, selector],
        )

    def story(self, selector: str) -> list[str]:
        """The texts since `follow`, in order."""
        return list(self.page.evaluate("selector => window.stories[selector]", selector))

    def wait_until(self, condition: str, argument: Any = None) -> None:
        """Wait for a condition in JavaScript; `notebook()` and `kernel()` are the ones of this page."""
        self.page.wait_for_function(condition, arg=argument, timeout=PATIENCE * 1000)

    def _index(self, source: str) -> int:
        self.show()
        sources = self.page.evaluate("() => notebook().widgets.map(c => c.model.sharedModel.source)")
        found = [i for i, text in enumerate(sources) if source in text]
        if len(found) != 1:
            raise LookupError(f"{len(found)} cells contain {source!r}")
        return found[0]

    def _command(self, name: str) -> None:
        """Execute one of JupyterLab's commands and wait for its end: by looking at it, since a promise can be awaited for ever."""
        self.page.evaluate(
            "name => { window.ended = false; jupyterapp.commands.execute(name).finally(() => { window.ended = true }) }",
            name,
        )
        self.wait_until("() => window.ended && kernel().status === 'idle'")


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, _no_settings_from_outside: None, _shared_endpoint: object
) -> Iterator[Server]:
    """JupyterLab on a copy of the notebooks. It reads no configuration of the user's and leaves the notebooks as they are.

    It asks for the tests' endpoint only because that has trained the models: a kernel then finds them in the cache.
    """
    home = tmp_path_factory.mktemp("jupyter")
    shutil.copytree(NOTEBOOKS, home / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints", "work"))
    (home / "app").mkdir()
    (home / "app" / "overrides.json").write_text(json.dumps(LAB_SETTINGS), encoding="utf-8")
    port, token = _free_port(), secrets.token_hex(16)
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *(f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={home / 'notebooks'}"),
        *(f"--IdentityProvider.token={token}", f"--LabApp.app_settings_dir={home / 'app'}"),
        "--LabApp.expose_app_in_browser=True",  # window.jupyterapp: commands without menus, and the notebook's model
    ]
    # The environment wins over a developer's .env, which may choose the live door. Models take twice the usual time:
    # on a fast machine too, what grows is then drawn more than once.
    chosen = {"WORKSHOP_MODE": "local", "WORKSHOP_TIME_SCALE": "0.1"}
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=home,
            env=os.environ | {name: str(home / folder) for name, folder in folders.items()} | chosen,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        running = Server(f"http://127.0.0.1:{port}", token, home / "notebooks")
        _wait_for(running, process, home / "log")
        yield running
    finally:
        process.terminate()  # it shuts its kernels down first
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The machine's own Chromium, headless, with a profile that playwright makes for it and removes again."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on the PATH: make browser")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=CHROMIUM_FLAGS, timeout=PATIENCE * 1000, chromium_sandbox=False
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def lab(browser: Any, server: Server) -> Iterator[Callable[[str], LabPage]]:
    """Open a notebook by its path below notebooks/, with a kernel that is connected and idle."""
    page = browser.new_page(viewport={"width": 1280, "height": 1700})
    page.set_default_timeout(PATIENCE * 1000)
    page.add_init_script(SHORTHANDS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))

    def open_notebook(path: str) -> LabPage:
        # A page that has to start its kernel sometimes starts two and lets go of the first, with the cells that wait for it.
        wanted = {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}
        kernel = server.ask("/api/sessions", wanted)["kernel"]["id"]
        if page.url == "about:blank":
            page.goto(f"{server.url}/doc/tree/{path}?token={server.token}")
        else:
            page.evaluate("path => { jupyterapp.commands.execute('docmanager:open', {path}) }", path)
        page.wait_for_function(
            "id => kernel()?.id === id && kernel().connectionStatus === 'connected' && kernel().status === 'idle'",
            arg=kernel,
        )
        opened = LabPage(page, page.evaluate("() => jupyterapp.shell.currentWidget.id"), errors)
        page.wait_for_selector(f"{opened.all} .jp-Cell", state="attached")
        return opened

    yield open_notebook
    page.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
        try:
            server.ask("/api/status")
        except urllib.error.URLError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"JupyterLab did not start. Its log:\n{log.read_text(encoding='utf-8')}")
