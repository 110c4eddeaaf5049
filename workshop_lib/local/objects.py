"""Which objects there are: what boto3 uses of S3, path style, in memory. Made for the input and output of batch jobs.

PutObject, GetObject, HeadObject, DeleteObject, ListObjectsV2, multipart uploads, CreateBucket and HeadBucket. A body is kept only if
it is as long as its headers say, and has the MD5, CRC32, SHA-1 or SHA-256 that they state; so an upload that is cut off leaves nothing
behind. Checksums of whole multipart uploads, and those that follow a body, are not looked at.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import uuid
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from urllib.parse import unquote
from xml.sax.saxutils import escape

from workshop_lib.local.wire import Response

XML = "application/xml"
PAGE = 1_000
"""Keys in one listing at most, as at S3."""
_SUMS: dict[str, Callable[[bytes], bytes]] = {
    "content-md5": lambda body: hashlib.md5(body, usedforsecurity=False).digest(),
    "x-amz-checksum-crc32": lambda body: zlib.crc32(body).to_bytes(4, "big"),
    "x-amz-checksum-sha1": lambda body: hashlib.sha1(body, usedforsecurity=False).digest(),
    "x-amz-checksum-sha256": lambda body: hashlib.sha256(body).digest(),
}
_STATUS = {"NoSuchKey": 404, "NoSuchBucket": 404, "NoSuchUpload": 404, "NotImplemented": 501}


class ObjectError(Exception):
    """An error as S3 names it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass(frozen=True)
class _Object:
    body: bytes
    etag: str
    modified: str

    @property
    def sha256(self) -> str:
        return base64.b64encode(hashlib.sha256(self.body).digest()).decode()


class Objects:
    """Buckets with objects. Safe to share between threads."""

    def __init__(self) -> None:
        self._buckets: dict[str, dict[str, _Object]] = {}
        self._uploads: dict[str, dict[int, bytes]] = {}
        self._lock = threading.Lock()

    def make_bucket(self, name: str) -> None:
        """An empty bucket, unless it is there."""
        with self._lock:
            self._buckets.setdefault(name, {})

    def has_bucket(self, name: str) -> bool:
        """Whether there is such a bucket."""
        return name in self._buckets

    def clear(self) -> None:
        """No buckets."""
        with self._lock:
            self._buckets.clear()
            self._uploads.clear()

    def put(self, bucket: str, key: str, body: bytes) -> str:
        """Keep an object; returns its ETag.

        Raises:
            ObjectError: there is no such bucket.
        """
        etag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
        objects = self._bucket(bucket)
        with self._lock:
            objects[key] = _Object(body, etag, formatdate(usegmt=True))
        return etag

    def get(self, bucket: str, key: str) -> bytes:
        """An object's bytes.

        Raises:
            ObjectError: there is no such bucket or object.
        """
        return self._object(bucket, key).body

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Keys that begin so, in order.

        Raises:
            ObjectError: there is no such bucket.
        """
        objects = self._bucket(bucket)
        with self._lock:
            return sorted(key for key in objects if key.startswith(prefix))

    def answer(
        self, method: str, raw_path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Response:
        """One request of S3's protocol. `raw_path` is undecoded, header names are in lower case."""
        bucket, _, key = unquote(raw_path).lstrip("/").partition("/")
        try:
            if method == "PUT" and not key:
                self.make_bucket(bucket)
                return Response(200, {"location": f"/{bucket}"}, b"")
            if not key and method == "HEAD":
                self._bucket(bucket)
                return Response(200, {}, b"")
            if not key and method == "GET" and query.get("list-type") == "2":
                return self._listing(bucket, query)
            if method == "PUT":
                body = _whole(headers, body)
            if key and method in ("PUT", "POST") and ("uploads" in query or "uploadId" in query):
                return self._multipart(bucket, key, query, body)
            if key and method == "PUT":
                return Response(200, {"etag": self.put(bucket, key, body)}, b"")
            if key and method in ("GET", "HEAD"):
                return self._shown(method, self._object(bucket, key), headers)
            if key and method == "DELETE":
                with self._lock:
                    found = self._uploads if "uploadId" in query else self._bucket(bucket)
                    found.pop(query.get("uploadId", key), None)
                return Response(204, {}, b"")
            return _refused("NotImplemented", f"The local door does not offer {method} of this in S3.", method)
        except ObjectError as error:
            return _refused(error.code, error.message, method)

    def _shown(self, method: str, found: _Object, headers: Mapping[str, str]) -> Response:
        told = {"etag": found.etag, "last-modified": found.modified, "content-type": "binary/octet-stream"}
        if headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
            told["x-amz-checksum-sha256"] = found.sha256
        body, status = found.body, 200
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", "")):
            start, end = int(asked[1]), min(int(asked[2] or len(body)), len(body) - 1)
            told["content-range"] = f"bytes {start}-{end}/{len(body)}"
            body, status = body[start : end + 1], 206
            told.pop("x-amz-checksum-sha256", None)  # of the whole, which a part cannot be held against
        told["content-length"] = str(len(body))
        return Response(status, told, b"" if method == "HEAD" else body)

    def _listing(self, bucket: str, query: Mapping[str, str]) -> Response:
        after = query.get("continuation-token", query.get("start-after", ""))
        keys = [key for key in self.keys(bucket, query.get("prefix", "")) if key > after]
        page = keys[: min(PAGE, int(query.get("max-keys", PAGE)))]
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.get(bucket, key))}</Size></Contents>" for key in page
        )
        more = len(page) < len(keys)
        cut = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more and page else ""
        said = f"<ListBucketResult><Name>{bucket}</Name><KeyCount>{len(page)}</KeyCount>{cut}{token}{entries}</ListBucketResult>"
        return Response(200, {"content-type": XML}, said.encode())

    def _multipart(self, bucket: str, key: str, query: Mapping[str, str], body: bytes) -> Response:
        """Begin an upload, take a part, or put the parts together."""
        self._bucket(bucket)
        if "uploads" in query:
            upload = uuid.uuid4().hex
            with self._lock:
                self._uploads[upload] = {}
            said = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            return Response(200, {"content-type": XML}, said.encode())
        upload = query["uploadId"]
        with self._lock:
            if upload not in self._uploads:
                raise ObjectError("NoSuchUpload", "The specified upload does not exist.")
            if "partNumber" in query:
                self._uploads[upload][int(query["partNumber"])] = body
                return Response(200, {"etag": f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'}, b"")
            parts = self._uploads.pop(upload)
        etag = self.put(bucket, key, b"".join(parts[n] for n in sorted(parts)))
        said = f"<CompleteMultipartUploadResult><Key>{escape(key)}</Key><ETag>{escape(etag)}</ETag></CompleteMultipartUploadResult>"
        return Response(200, {"content-type": XML}, said.encode())

    def _bucket(self, name: str) -> dict[str, _Object]:
        if name not in self._buckets:
            raise ObjectError("NoSuchBucket", f"The specified bucket does not exist: {name}.")
        return self._buckets[name]

    def _object(self, bucket: str, key: str) -> _Object:
        found = self._bucket(bucket).get(key)
        if found is None:
            raise ObjectError("NoSuchKey", f"The specified key does not exist: {key}.")
        return found


def _refused(code: str, message: str, method: str) -> Response:
    said = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    return Response(_STATUS.get(code, 400), {"content-type": XML}, b"" if method == "HEAD" else said.encode())


def _whole(headers: Mapping[str, str], body: bytes) -> bytes:
    """The body as it was meant.

    Raises:
        ObjectError: it is shorter than announced, or has another checksum.
    """
    if "aws-chunked" in headers.get("content-encoding", "") or headers.get("x-amz-content-sha256", "").startswith(
        "STREAMING-"
    ):
        body = _unchunked(body)
    announced = headers.get("x-amz-decoded-content-length") or headers.get("content-length")
    if announced is not None and int(announced) != len(body):
        raise ObjectError(
            "IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header."
        )
    for name, sum_of in _SUMS.items():
        if name in headers and headers[name] != base64.b64encode(sum_of(body)).decode():
            raise ObjectError("BadDigest", f"The {name} you specified did not match the calculated checksum.")
    return body


def _unchunked(raw: bytes) -> bytes:
    """The bytes of an `aws-chunked` body: each chunk behind a line with its length in hexadecimal digits."""
    body = b""
    while raw:
        line, _, raw = raw.partition(b"\r\n")
        size = int(line.split(b";")[0] or b"0", 16)
        if size == 0:
            break
        body, raw = body + raw[:size], raw[size + 2 :]
    return body
