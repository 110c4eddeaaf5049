"""The shop's agent at the real local endpoint, whose small models are replaced by a script where a test needs a certain answer."""

from __future__ import annotations

import json
import threading
from collections import deque

import pytest

from workshop_lib.bedrock.client import Bedrock
from workshop_lib.bedrock.settings import Settings
from workshop_lib.local.models.answers import Said
from workshop_lib.local.server import LocalEndpoint
from workshop_lib.shop import ShopAgent, load_shop


def use(name, **arguments):
    """The model calls a tool."""
    return Said(json.dumps(arguments), ((name, arguments),))


def say(text):
    """The model answers."""
    return Said(text)


class Script:
    """Stands where the small models stand: what each question is answered with, call by call; the last one repeats.

    `classifier` is the reply to requests without tools, `by_text` holds the turns of questions that contain a text.
    """

    def __init__(self):
        self.classifier = "simple"
        self.turns = deque([say("You have 21 days.")])
        self.by_text = {}
        self.seen = []
        self._lock = threading.Lock()

    def play(self, *turns):
        self.turns = deque(turns)

    def answer(self, spec, question):
        with self._lock:
            self.seen.append((spec.key, question))
            if not question.tools:
                return say(self.classifier)
            turns = next((t for text, t in self.by_text.items() if text in question.user), self.turns)
            return turns.popleft() if len(turns) > 1 else turns[0]


@pytest.fixture(scope="session")
def shop():
    return load_shop()


@pytest.fixture(scope="module")
def _scripted_endpoint(catalogue):
    with LocalEndpoint(catalogue, time_scale=0) as endpoint:
        yield endpoint


@pytest.fixture
def door(_scripted_endpoint):
    """The endpoint with an empty journal and cache, and no faults."""
    _scripted_endpoint.faults.clear()
    _scripted_endpoint.journal.clear()
    _scripted_endpoint.cache.clear()
    return _scripted_endpoint


@pytest.fixture
def script(door):
    door._engine._answerer = Script()
    return door._engine._answerer


@pytest.fixture
def make_client(door, catalogue):
    made = []

    def make(pair=None, **options):
        models = type(catalogue).load(pair=pair) if pair else catalogue
        made.append(Bedrock(Settings(endpoint_url=door.url), models, sleep=lambda s: None, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def make_agent(make_client, script, shop):
    made = []

    def make(pair="haiku-sonnet", **options):  # the default pair's cheap model writes some tool calls as text
        made.append(ShopAgent(make_client(pair), shop=shop, **options))
        return made[-1]

    yield make
    for agent in made:
        agent.close()


@pytest.fixture
def agent(make_agent):
    return make_agent()
