"""CALLING: models by role, over Bedrock's Converse, with exact cost."""

from workshop_lib.bedrock.catalogue import Catalogue, ModelSpec, Price, Usage
from workshop_lib.bedrock.client import Bedrock, Tool
from workshop_lib.bedrock.errors import BedrockError, ConfigurationError, InvalidOutput, UnknownModel, WorkshopError
from workshop_lib.bedrock.guardrails import Assessment
from workshop_lib.bedrock.replies import Reply, StreamEvent
from workshop_lib.bedrock.settings import Settings

__all__ = [
    "Assessment",
    "Bedrock",
    "BedrockError",
    "Catalogue",
    "ConfigurationError",
    "InvalidOutput",
    "ModelSpec",
    "Price",
    "Reply",
    "Settings",
    "StreamEvent",
    "Tool",
    "UnknownModel",
    "Usage",
    "WorkshopError",
]
