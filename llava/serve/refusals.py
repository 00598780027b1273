"""What the server refuses: its limits, and the one form in which every refusal is answered.

{"error": {"message", "type", "code", "param", "field"}} with a 4xx status, or 503; OpenAI's form,
`field` (only where there is one) is the same as `param`
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from llava.serve.engine import Unavailable

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

RETRY_SECONDS = 2
_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "too_large",
    415: "unsupported_type",
    421: "wrong_host",
    422: "invalid_value",
    500: "server_error",
    503: "unavailable",
}
_TYPES = {401: "authentication_error", 403: "permission_error"}
"""OpenAI's words for kinds of errors; clients read them."""


@dataclass(frozen=True)
class Limits:
    """images: in a request. image_bytes, pixels: of one image. text: characters of one field.
    gen_length: canvas. gap_tokens: of one blank. queue: requests that wait. body: bytes of a
    request. marks: commas, colons and brackets of a JSON. depth: of its nesting. seconds: that a
    request's body may take to arrive. log: characters of the images and edits of an entry."""

    images: int = 6
    image_bytes: int = 32 << 20
    pixels: int = 36_000_000
    text: int = 8_000
    gen_length: int = 512
    gap_tokens: int = 64
    queue: int = 64
    body: int = 96 << 20
    marks: int = 50_000
    depth: int = 24
    seconds: float = 60.0
    log: int = 1_000_000

    @property
    def json_text(self) -> int:
        """Bytes of the longest text of a JSON: an image in base64, its slashes escaped or not."""
        return self.image_bytes * 17 // 12 + 1024

    def shown(self) -> dict[str, int]:
        """Those that a page asks for."""
        names = ("images", "image_bytes", "pixels", "text", "gap_tokens", "queue")
        return {name: getattr(self, name) for name in names}


class Refused(Exception):
    """A request that is answered with a status and a message, which never repeats its content at
    length. field: where it is wrong, such as `context.indication`."""

    def __init__(
        self,
        status: int,
        message: str,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.field = status, message, field
        self.headers = dict(headers or {})
        if status == 503:
            self.headers.setdefault("Retry-After", str(RETRY_SECONDS))

    def body(self) -> dict[str, Any]:
        return error_body(self.status, self.message, self.field)


def error_body(status: int, message: str, field: str | None = None) -> dict[str, Any]:
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    code = "model_not_found" if (status, field) == (404, "model") else _CODES.get(status)
    own = {"message": message, "type": kind, "code": code, "param": field}
    return {"error": own | ({"field": field} if field else {})}


def answered(error: Exception, field: str | None = None) -> Refused:
    """A refusal of what the engine or the writer said."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, Unavailable):
        return Refused(503, str(error))
    if isinstance(error, ValueError):
        return Refused(422, brief(str(error), 500), field)
    return Refused(500, f"the model failed with {type(error).__name__}; the log has more")


def brief(text: object, most: int = 60) -> str:
    """On one line and short, for a message."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else line[: most - 3] + "..."


def add_handlers(app: FastAPI) -> None:
    """Every error of the app in the one form."""

    @app.exception_handler(Refused)
    async def _refused(_: Request, error: Refused) -> JSONResponse:
        return JSONResponse(error.body(), error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"] if part not in ("body", "query")]
        field = brief(".".join(place), 80) or None
        message = f"{field or 'the request'}: {brief(first['msg'], 200)}"
        return JSONResponse(error_body(422, message, field), 422)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        words = {
            404: "there is nothing at this path; the API is listed at /docs",
            405: f"{brief(request.method, 12)} is not allowed here; the API is listed at /docs",
        }
        message = words.get(error.status_code, brief(error.detail, 200))
        return JSONResponse(
            error_body(error.status_code, message), error.status_code, error.headers
        )


def parse_json(data: bytes, limits: Limits) -> Any:
    """The JSON of a body; Refused for what is none, is too deep or has too many parts.

    Counted before it is parsed: a body of brackets would take many times its size in memory.
    """
    marks = sum(data.count(mark) for mark in (b",", b":", b"[", b"{"))
    if marks > limits.marks:
        raise Refused(
            413, f"the JSON has {marks} commas, colons and brackets; at most {limits.marks}"
        )
    try:
        found = json.loads(
            data, parse_constant=_no_constant, parse_int=_whole_number, parse_float=_finite
        )
    except RecursionError as error:
        raise _too_deep(limits) from error
    except ValueError as error:  # UnicodeDecodeError is one
        raise Refused(400, f"the body is not JSON: {brief(error, 120)}") from error
    _check_depth(found, limits)
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _whole_number(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"a number of {len(digits)} digits is too long")
    return int(digits)


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"{brief(digits, 20)} is too large for a number")
    return number


def _check_depth(value: Any, limits: Limits) -> None:
    level = [value]
    for _ in range(limits.depth):
        below = (v for v in level if isinstance(v, dict | list))
        level = [one for v in below for one in (v.values() if isinstance(v, dict) else v)]
        if not level:
            return
    raise _too_deep(limits)


def _too_deep(limits: Limits) -> Refused:
    return Refused(400, f"the JSON is nested too deep; at most {limits.depth} levels")
