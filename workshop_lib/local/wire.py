"""Bedrock's protocol, made from the service model that the installed botocore carries: routes, shapes, limits, errors, streams.

Nothing here knows what a model answers: it turns HTTP into (operation, parameters) and results or errors into bytes that an
unmodified boto3 (or any other client) reads. A newer boto3 brings its newer shapes along.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import re
import struct
import uuid
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StringShape, StructureShape
from botocore.validate import ParamValidator

JSON = "application/json"
EVENT_STREAM = "application/vnd.amazon.eventstream"
_HEADER_IS_STRING = b"\x07"


class ServiceError(Exception):
    """An error as the service answers it, e.g. ServiceError("ThrottlingException", "Too many requests, ...")."""

    def __init__(self, code: str, message: str, **members: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.members = code, message, members


@dataclass(frozen=True)
class Response:
    """Status, headers and body of an answer that is not a stream."""

    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """One AWS service with a REST-JSON protocol, by default Bedrock Runtime."""

    def __init__(self, service: str = "bedrock-runtime") -> None:
        self.model = ServiceModel(Loader().load_service_model(service, "service-2"), service)
        self.errors = {shape.name: shape for shape in self.model.error_shapes}
        self._routes = [self._route_of(self.model.operation_model(name)) for name in self.model.operation_names]
        self._validator = ParamValidator()

    @staticmethod
    def _route_of(operation: OperationModel) -> tuple[str, re.Pattern[str], OperationModel]:
        path = re.escape(operation.http["requestUri"].split("?")[0])
        pattern = re.sub(r"\\\{(\w+)(?:\\\+)?\\\}", r"(?P<\1>[^/]+)", path)
        return operation.http["method"], re.compile(pattern + "/?"), operation

    def route(self, method: str, raw_path: str) -> tuple[OperationModel, dict[str, str]]:
        """The operation of a request and its path parameters. `raw_path` is undecoded: model ids hold %3A, ARNs %2F.

        Raises:
            ServiceError: the path belongs to no operation.
        """
        for verb, pattern, operation in self._routes:
            if verb == method and (match := pattern.fullmatch(raw_path)):
                return operation, {k: unquote(v) for k, v in match.groupdict().items()}
        raise ServiceError(
            "UnknownOperationException",
            f"There is no operation {method} {raw_path} in {self.model.metadata['serviceId']}.",
        )

    def parse(
        self,
        operation: OperationModel,
        path: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The parameters that the caller passed to boto3. `headers` have lower-case names.

        Raises:
            ServiceError: the body is not JSON of an object, or holds broken base64.
        """
        shape = _structure(operation.input_shape)
        params: dict[str, Any] = {}
        payload = shape.serialization.get("payload")
        if payload:
            params[payload] = body
        elif body:
            params.update(_json_object(body))
        for name, member in shape.members.items():
            where, key = member.serialization.get("location"), member.serialization.get("name", name)
            if where == "uri":
                params[name] = path[key]
            elif where == "header" and key.lower() in headers:
                params[name] = headers[key.lower()]
            elif where == "querystring" and query and key in query:
                number = member.type_name == "integer" and query[key].isdecimal()
                params[name] = int(query[key]) if number else query[key]
        decoded: dict[str, Any] = _decode_blobs(params, shape)
        return decoded

    def check(self, operation: OperationModel, params: Mapping[str, Any]) -> None:
        """Refuse what the service would refuse, in its words.

        Raises:
            ServiceError: ValidationException that names every field at fault.
        """
        if found := self.problems(_structure(operation.input_shape), params):
            plural = "s" if len(found) > 1 else ""
            raise ServiceError(
                "ValidationException", f"{len(found)} validation error{plural} detected: {'; '.join(found)}"
            )

    def problems(self, shape: Shape, value: Any) -> list[str]:
        """botocore's own checks (required, types, unknown members) and those that only the service makes (enum, pattern, maximum)."""
        report = self._validator.validate(value, shape)
        if report.has_errors():
            return [line for line in report.generate_report().splitlines() if line]
        return list(_violations(shape, value, ""))

    def error(self, error: ServiceError) -> Response:
        """An error as an HTTP answer: the modelled status, and the name in the header where every SDK looks for it."""
        shape = self.errors.get(error.code)
        status = shape.metadata["error"]["httpStatusCode"] if shape else _UNMODELLED.get(error.code, 400)
        headers = {"content-type": JSON, "x-amzn-errortype": error.code, "x-amzn-requestid": str(uuid.uuid4())}
        return Response(status, headers, json.dumps({"message": error.message, **error.members}).encode())

    def result(self, operation: OperationModel, result: Mapping[str, Any]) -> Response:
        """A result as an HTTP answer."""
        shape = _structure(operation.output_shape)
        headers = {"content-type": JSON, "x-amzn-requestid": str(uuid.uuid4())}
        members = dict(result)
        for name, member in shape.members.items():
            if member.serialization.get("location") == "header" and name in members:
                headers[member.serialization.get("name", name).lower()] = str(members.pop(name))
        payload = shape.serialization.get("payload")
        body = members[payload] if payload else json.dumps(members, separators=(",", ":"), default=_base64).encode()
        return Response(operation.http.get("responseCode", 200), headers, body)


# Answered by the front door of the service, so not in its model.
_UNMODELLED = {"UnknownOperationException": 404, "UnrecognizedClientException": 403, "ExpiredTokenException": 403}


def event_bytes(event: Mapping[str, Any] | ServiceError) -> bytes:
    """One event of a stream, or the error that ends it, as an Amazon event-stream message."""
    if isinstance(event, ServiceError):
        kind = event.code[0].lower() + event.code[1:]  # in a stream an error goes by its member's name
        headers = {":exception-type": kind, ":content-type": JSON, ":message-type": "exception"}
        return _message(headers, {"message": event.message, **event.members})
    ((kind, body),) = event.items()
    return _message({":event-type": kind, ":content-type": JSON, ":message-type": "event"}, body)


def _message(headers: Mapping[str, str], body: Mapping[str, Any]) -> bytes:
    payload = json.dumps(body, separators=(",", ":")).encode()
    head = b"".join(
        struct.pack("!B", len(k)) + k.encode() + _HEADER_IS_STRING + struct.pack("!H", len(v)) + v.encode()
        for k, v in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + head + payload
    return message + struct.pack("!I", zlib.crc32(message))


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ServiceError("SerializationException", f"The request body is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ServiceError("SerializationException", "The request body is not a JSON object.")
    return found


def _structure(shape: Shape | None) -> StructureShape:
    if not isinstance(shape, StructureShape):
        raise TypeError(f"expected a structure, not {shape}")
    return shape


def _base64(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} does not go into JSON")


@functools.cache
def _reaches_blob(shape: Shape) -> bool:
    def reaches(shape: Shape, seen: frozenset[str]) -> bool:
        if shape.type_name == "blob":
            return True
        if shape.name in seen:
            return False
        return any(reaches(child, seen | {shape.name}) for child in _children(shape))

    return reaches(shape, frozenset())


def _children(shape: Shape) -> list[Shape]:
    if isinstance(shape, StructureShape):
        return list(shape.members.values())
    if isinstance(shape, ListShape):
        return [shape.member]
    return [shape.value] if isinstance(shape, MapShape) else []


def _decode_blobs(value: Any, shape: Shape) -> Any:
    if shape.type_name == "blob" and isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ServiceError("SerializationException", f"A binary field is not base64: {error}") from None
    if not _reaches_blob(shape):
        return value
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        return {k: _decode_blobs(v, shape.members[k]) if k in shape.members else v for k, v in value.items()}
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_decode_blobs(v, shape.member) for v in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {k: _decode_blobs(v, shape.value) for k, v in value.items()}
    return value


@functools.cache
def _regex(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern)
    except re.error:  # Java's dialect knows more than Python's
        return None


def _violations(shape: Shape, value: Any, where: str) -> Iterator[str]:
    limits = shape.metadata
    if isinstance(shape, StructureShape):
        if getattr(shape, "is_document_type", False):
            return
        for name, child in value.items():
            if name in shape.members:
                yield from _violations(shape.members[name], child, f"{where}.{name}" if where else name)
    elif isinstance(shape, ListShape):
        yield from _too_long(value, where, limits)
        for i, child in enumerate(value, 1):
            yield from _violations(shape.member, child, f"{where}.{i}.member")
    elif isinstance(shape, MapShape):
        yield from _too_long(value, where, limits)
        for key, child in value.items():
            yield from _violations(shape.key, key, f"{where}.key")
            yield from _violations(shape.value, child, f"{where}.{key}.member")
    elif isinstance(shape, StringShape):
        if shape.enum and value not in shape.enum:
            yield _failed(value, where, f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")
        yield from _too_long(value, where, limits)
        if (pattern := limits.get("pattern")) and (regex := _regex(pattern)) and not regex.fullmatch(value):
            yield _failed(value, where, f"Member must satisfy regular expression pattern: {pattern}")
    elif shape.type_name in ("integer", "long", "float", "double"):
        if "min" in limits and value < limits["min"]:
            yield _failed(value, where, f"Member must have value greater than or equal to {limits['min']}")
        if "max" in limits and value > limits["max"]:
            yield _failed(value, where, f"Member must have value less than or equal to {limits['max']}")


def _too_long(value: Any, where: str, limits: Mapping[str, Any]) -> Iterator[str]:
    if "max" in limits and len(value) > limits["max"]:
        yield _failed(value, where, f"Member must have length less than or equal to {limits['max']}")


def _failed(value: Any, where: str, rule: str) -> str:
    shown = str(value)
    shown = shown if len(shown) <= 80 else shown[:80] + "..."
    return f"Value '{shown}' at '{where}' failed to satisfy constraint: {rule}"
