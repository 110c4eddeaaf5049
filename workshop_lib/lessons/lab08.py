"""What counts as right in lab 08, a small collector to send spans to, and the fence around the deployment."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from workshop_lib.bedrock.catalogue import Catalogue, Usage
from workshop_lib.bedrock.errors import ConfigurationError
from workshop_lib.display.theme import Html, show_table, usd
from workshop_lib.lessons.checks import Exercise, NotAttemptedError
from workshop_lib.tracing.store import CACHE_READ, CACHE_WRITE, INPUT, OPERATION, OUTPUT, Span, Trace

if TYPE_CHECKING:
    from workshop_lib.deployment import Plan
    from workshop_lib.workshop import Workshop

ARN = "arn:aws:bedrock-agentcore:us-west-2:" + "0" * 12 + ":runtime/shop_agent-example"
"""A runtime's name as AWS would give it. At the local door any one reaches the app."""
ROUTES = ("classifier", "cheap", "strong", "cascade")
AGENT_PY = '''"""The entry point of the runtime: what `app.run()` serves on AWS is what the lab served on this machine."""

from workshop_lib import open_workshop
from workshop_lib.agentcore import make_app
from workshop_lib.shop import ShopAgent

agent = ShopAgent(open_workshop())


def invoke(payload, session_id):
    answer = agent.answer(payload["prompt"])
    return {"answer": answer.text, "tier": answer.tier, "cost_usd": answer.cost_usd}


app = make_app(invoke)

if __name__ == "__main__":
    app.run()
'''


def plain(trace: Trace) -> list[dict[str, Any]]:
    """A trace's spans as flat dicts: id, parent, name, operation, model, and where it has them the four counters in tokens."""
    rows = []
    for span in trace.spans:
        of = span.attributes
        row = {
            "id": span.span_id[:6],
            "parent": (span.parent_id or "")[:6],
            "name": span.name,
            "operation": of.get(OPERATION, ""),
            "model": of.get("gen_ai.request.model", ""),
        }
        for name, key in (("input", INPUT), ("cache_read", CACHE_READ), ("cache_write", CACHE_WRITE), ("output", OUTPUT)):  # fmt: skip
            row[name] = int(of.get(key, 0))
        rows.append(row)
    return rows


def price_of(catalogue: Catalogue) -> Callable[..., float]:
    """The price of tokens as a function `price(model, fresh, output, cache_read, cache_write)`, in USD; `fresh`: sent, and not from the cache."""

    def price(model: str, fresh: int, output: int, cache_read: int = 0, cache_write: int = 0) -> float:
        return catalogue[model].cost(Usage(fresh, output, cache_read, cache_write))

    return price


def pieces(text: str) -> list[str]:
    """What gives a text away, in lower case: its e-mail addresses, and every three words in a row."""
    words = [word for word in text.lower().split() if '"' not in word and "\\" not in word]
    found = re.findall(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", text.lower())
    return [*found, *(" ".join(words[i : i + 3]) for i in range(len(words) - 2))]


def where_it_went(traces: Sequence[Trace]) -> Html:
    """Spans by name: how many, what they cost, and how long they took on this machine (nearest-rank percentiles)."""
    by_name: dict[str, list[Span]] = {}
    for trace in traces:
        for span in trace.spans:
            named = f"chat {span.attributes.get('workshop.model', '?')}" if span.is_call else span.name
            if span.attributes.get("workshop.role") == "classifier":
                named = "the classifier's chat"
            by_name.setdefault(named, []).append(span)
    total = math.fsum(trace.cost_usd for trace in traces)
    rows = []
    for name, spans in sorted(by_name.items(), key=lambda item: -_spent(item[1])):
        spent, took = _spent(spans), [span.duration_ms for span in spans]
        priced = any(span.cost_usd is not None for span in spans)
        rows.append(
            {
                "span": name,
                "n": len(spans),
                "cost": usd(spent) if priced else "",
                "share": f"{spent / total:.0%}" if priced and total else "",
                "p50 ms": f"{percentile(took, 50):,.0f}",
                "p95 ms": f"{percentile(took, 95):,.0f}",
            }
        )
    return show_table(rows, caption=f"{len(traces)} requests, {usd(total)} in all; only calls have a cost of their own")


def percentile(values: Sequence[float], p: float) -> float:
    """The smallest value that at least p per cent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(p / 100 * len(ordered)) - 1)]


class Collector:
    """A collector as small as can be: it takes OTLP over HTTP on this machine and keeps the spans in a list."""

    def __init__(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        self.spans: list[dict[str, Any]] = []
        """name and attributes of each, in the order of their arrival."""
        kept = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        kept.extend({"name": span.name, "attributes": _attributes(span)} for span in scope.spans)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                """No line for every request."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        """What OTEL_EXPORTER_OTLP_ENDPOINT would be."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Stop listening: from then on nobody is at its address."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def post(url: str, body: Any) -> tuple[int, Any]:
    """Send JSON by plain HTTP; gives status and answer, also where the status is an error."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = Request(url, raw, {"content-type": "application/json"})
    try:
        with urlopen(request, timeout=300) as response:
            return response.status, json.loads(response.read())
    except HTTPError as error:
        return error.code, json.loads(error.read())


def data_plane(url: str) -> Any:
    """A plain boto3 client of AgentCore's data plane, at another address and with invented credentials."""
    import boto3

    session = boto3.Session(aws_access_key_id="local", aws_secret_access_key="local", region_name="us-west-2")
    make: Any = session.client
    return make("bedrock-agentcore", endpoint_url=url)


def deployment_plan(workshop: Workshop, folder: Path) -> Plan:
    """Write agent.py into a folder and plan its deployment with the folder's code."""
    from workshop_lib.deployment import Plan, zip_folder

    folder.mkdir(exist_ok=True)
    (folder / "agent.py").write_text(AGENT_PY, encoding="utf-8")
    models = {spec.id: spec for spec in (workshop.catalogue[role] for role in ("classifier", "cheap", "strong"))}
    region = workshop.settings.region or "us-west-2"
    environment = {"WORKSHOP_MODE": "live", "WORKSHOP_REGION": region}
    return Plan("shop_agent", zip_folder(folder), region, tuple(models.values()), environment=environment)


def deploy_and_ask(plan: Plan, workshop: Workshop, payload: Mapping[str, Any], *, really: bool) -> str:
    """Deploy, ask once, delete again. Nothing is called unless the door is live *and* `really` is True.

    Raises:
        ConfigurationError: the code lacks its dependencies.
        DeploymentFailed, LeftBehind: see `deployment.deployed`.
    """
    if workshop.settings.mode != "live":
        return "Nothing was deployed: the door is local. This is the plan only."
    if really is not True:
        return "Nothing was deployed: set DEPLOY = True above if you have read the bill."
    import io
    import zipfile

    import boto3

    from workshop_lib.deployment import AwsClients, deployed

    if not any(name.startswith("bedrock_agentcore/") for name in zipfile.ZipFile(io.BytesIO(plan.code)).namelist()):
        raise ConfigurationError(
            "The code has no dependencies beside it, and a runtime installs nothing.",
            advice="Put them into the folder first: the pip line is at the top of workshop_lib/deployment.py.",
        )
    session = boto3.Session(region_name=plan.region, profile_name=workshop.settings.aws_profile)
    with deployed(plan, AwsClients.from_session(session), really=True) as agent:
        said = agent.invoke(payload)
    return f"Answered on AWS, and deleted again: {said}"


def _spent(spans: Sequence[Span]) -> float:
    return math.fsum(span.cost_usd or 0.0 for span in spans)


def _attributes(span: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value") or "string_value") for a in span.attributes}


def _row(name: str, operation: str, model: str, *tokens: int) -> dict[str, Any]:
    counters = dict(zip(("input", "cache_read", "cache_write", "output"), tokens or (0, 0, 0, 0), strict=True))
    return {"id": name[:6], "parent": "", "name": name, "operation": operation, "model": model, **counters}


_WITHOUT_CACHE = (
    _row("ask", "invoke_workflow", ""),
    _row("chat small", "chat", "small", 657, 0, 0, 1),
    _row("invoke_agent shop-cheap", "invoke_agent", "small", 4_949, 0, 0, 89),
    _row("execute_event_loop_cycle", "execute_event_loop_cycle", ""),
    _row("chat", "chat", "small", 2_398, 0, 0, 19),
    _row("execute_tool web_search", "execute_tool", ""),
    _row("chat", "chat", "small", 2_551, 0, 0, 70),
)
_WITH_CACHE = (
    _row("ask", "invoke_workflow", ""),
    _row("chat small", "chat", "small", 700, 0, 0, 2),
    _row("invoke_agent shop-strong", "invoke_agent", "large", 6_100, 2_800, 2_800, 160),
    _row("chat", "chat", "large", 3_000, 0, 2_800, 40),
    _row("chat", "chat", "large", 3_100, 2_800, 0, 120),
)


def _price(model: str, fresh: int, output: int, cache_read: int = 0, cache_write: int = 0) -> float:
    """Invented prices: what is right must not depend on the pair."""
    inwards, out = (3.0, 15.0) if model == "large" else (0.06, 0.24)
    if not model:
        return 0.0
    return (fresh * inwards + output * out + cache_read * inwards / 10 + cache_write * inwards * 1.25) / 1e6


def _bill(rows: Sequence[Mapping[str, Any]], *, cached_as_fresh: bool = False) -> float:
    cached = 0 if cached_as_fresh else 1
    return math.fsum(
        _price(
            r["model"],
            r["input"] - cached * (r["cache_read"] + r["cache_write"]),
            r["output"],
            r["cache_read"],
            r["cache_write"],
        )
        for r in rows
    )


def _cost(answer: Callable[..., Any]) -> str | None:
    for rows, words in ((_WITHOUT_CACHE, "a request without a cache"), (_WITH_CACHE, "a request with a cache")):
        given = answer([dict(row) for row in rows], _price)
        if given is None or given is ...:
            raise NotAttemptedError
        calls = [row for row in rows if row["operation"] == "chat"]
        wanted, found = _bill(calls), f"for {words} it gives {usd(float(given))}"
        if math.isclose(given, wanted, rel_tol=1e-9):
            continue
        if any(math.isclose(given, _bill(rows, cached_as_fresh=c), rel_tol=1e-9) for c in (False, True)):
            return f"{found}: the tokens of invoke_agent are those of the calls beneath it, and you paid them twice"
        if any(math.isclose(given, _bill(calls[1:], cached_as_fresh=c), rel_tol=1e-9) for c in (False, True)):
            return f"{found}: the classifier's call is missing"
        if math.isclose(given, _bill(calls, cached_as_fresh=True), rel_tol=1e-9):
            return f"{found}: `input` includes what was read from and written to the cache, so you paid that twice"
        return f"{found}, which is not the bill"
    return None


_ASKED = "Please send the Invoice to Jo.Doe@example.org and cancel my tablet order"


def _span(name: str = "chat", events: Sequence[Mapping[str, Any]] = (), **attributes: Any) -> Span:
    return Span(
        "t", "s", None, name, 0, 1, "UNSET", {OPERATION: "chat", "workshop.input_chars": 72, **attributes}, events
    )


def _finder(answer: Callable[..., Any]) -> str | None:
    said = [{"name": "gen_ai.user.message", "attributes": {"content": _ASKED}}]
    cases: tuple[tuple[Span, bool, str], ...] = (
        (_span(), False, "a span that holds only names and figures"),
        (_span("execute_tool order_status"), False, "a span whose name has the word order in it, as many tools' have"),
        (_span(note=_ASKED.lower()), True, "an attribute that is the question in small letters"),
        (_span(note=f"It was said: {_ASKED}!"), True, "an attribute that quotes the question as it was written"),
        (_span(contact="Jo.Doe@example.org"), True, "an attribute with the e-mail address alone"),
        (_span(reasons=["unsure", _ASKED]), True, "an attribute that is a list with the question in it"),
        (_span(events=said), True, "an event that holds the question"),
        (_span(f"ask {_ASKED}"), True, "a span whose name is the question"),
    )
    for span, leaks, words in cases:
        given = answer([_span(), span], pieces(_ASKED))
        if given is None or given is ...:
            raise NotAttemptedError
        if bool(given) != leaks:
            return f"{words} is {'passed over' if leaks else 'taken for a leak'}"
        if leaks and set(given) != {span.name}:
            return f"for {words} it gives {given!r}: give the names of the spans that leak"
    return None


class _Asked:
    """Stands for the agent: notes what it was asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def answer(self, question: str, route: str = "classifier") -> Any:
        from types import SimpleNamespace

        self.seen.append((question, route))
        return SimpleNamespace(text="You have 21 days.", tier="cheap", cost_usd=0.0004)


def _entry(answer: Callable[..., Any]) -> str | None:
    agent = _Asked()
    good: tuple[tuple[dict[str, Any], tuple[str, str]], ...] = (
        ({"prompt": "How long?"}, ("How long?", "classifier")),
        ({"prompt": "How long?", "route": "strong"}, ("How long?", "strong")),
    )
    for payload, wanted in good:
        agent.seen.clear()
        given = answer(dict(payload), agent)
        if given is None or given is ...:
            raise NotAttemptedError
        if agent.seen != [wanted]:
            return f"for {payload} the agent was asked {agent.seen}"
        if not isinstance(given, Mapping) or set(given) != {"answer", "tier", "cost_usd"}:
            return f"for {payload} it gives {given!r}: give a dict with answer, tier and cost_usd"
        if (given["answer"], given["tier"], given["cost_usd"]) != ("You have 21 days.", "cheap", 0.0004):
            return f"for {payload} it gives {given!r}, which is not what the agent said"
        json.dumps(given)
    bad: tuple[Any, ...] = (
        [], "How long?", {}, {"prompt": None}, {"prompt": 5}, {"prompt": "  "}, {"prompt": "x", "route": "best"},
        {"prompt": "x", "route": ["cheap"]},
    )  # fmt: skip
    for payload in bad:
        agent.seen.clear()
        try:
            given = answer(payload, agent)
        except Exception as error:
            return f"for {payload!r} it raises {type(error).__name__}: the caller would see a 500 and not know why"
        if agent.seen:
            return f"for {payload!r} the agent was asked: refuse before you pay"
        if not isinstance(given, Mapping) or set(given) != {"error"} or not str(given["error"]).strip():
            return f'for {payload!r} it gives {given!r}: give {{"error": what to send instead}}'
    return None


EXERCISES = {
    "8.1": Exercise(
        _cost,
        (
            "Which spans are one call of a model? `operation` says it. An agent's span repeats what the calls beneath it used.",
            "For each call: fresh = input - cache_read - cache_write. Then price(model, fresh, output, cache_read, cache_write).",
            'total += price(s["model"], fresh, s["output"], s["cache_read"], s["cache_write"]) for each s whose operation is "chat".',
        ),
        "every call once, whoever repeats it, and each token at its own price.",
    ),
    "8.2": Exercise(
        _finder,
        (
            "Look at all that a span holds: its name, its attributes, its events. Attributes can be lists.",
            "json.dumps turns all of it into one text. The pieces are in lower case; is your text?",
            "held = json.dumps([span.name, dict(span.attributes), list(span.events)]).lower(), then any(piece in held for piece in pieces).",
        ),
        "whatever a library adds to a span tomorrow, this looks at it too.",
    ),
    "8.3": Exercise(
        _entry,
        (
            'First what is wrong, each with `return {"error": ...}`: no dict, no text as prompt, an empty one, an unknown route.',
            'route = payload.get("route", "classifier"). `in ROUTES` is False for what is not there, also for a list.',
            'Then found = agent.answer(payload["prompt"], route), and return its text, tier and cost_usd.',
        ),
        "bad payloads are refused in words and before anything is paid.",
    ),
}
