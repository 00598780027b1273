"""Around the whole app: who may ask, from where, and how much; nothing of a request is logged.

Checked before a body is read: Host (against DNS rebinding), Origin and Sec-Fetch-Site (against
pages of other origins), the token, type and length of the body. Then the body is read up to its
limit, a JSON is checked, and the app sees the rest.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import logging
import time
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.serve.refusals import Limits, Refused, error_body, parse_json

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

PARSED = "llava.json"
"""Where the app finds the JSON of a body."""
_OPEN_PATHS = ("/", "/healthz")
_ASSETS = "/assets/"
_BODY_TYPES = ("application/json", "multipart/form-data")
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_BUFFERED_BODIES = 6
"""How many bodies of the largest size may be held at once."""

log = logging.getLogger("llava.serve")


class Guard:
    """hosts: names and addresses that a Host header may hold, next to every IP address when
    `any_address`. token: that every call but the page's own files needs; None: no token.
    draining: asked before each call that brings work."""

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        hosts: Collection[str],
        token: str | None = None,
        any_address: bool = False,
        draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self.app, self.limits, self.token = app, limits, token
        self.hosts, self.any_address, self.draining = frozenset(hosts), any_address, draining
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.monotonic(), 0
        arriving = _Arriving(receive, scope)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message["headers"]}
                own = [(k.encode(), v.encode()) for k, v in _HEADERS.items()]
                more = [(name, value) for name, value in own if name not in given]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        try:
            headers = self._checked(scope)
            await self._pass_on(scope, headers, arriving, sending)
        except Refused as refused:
            await _send_refusal(refused, arriving, sending, self.limits.body)
        except Exception as error:
            log.error("%s at %s", type(error).__name__, _where(error))
            if not status:
                body = error_body(500, "the server failed; its log says where")
                await _send_json(sending, 500, body, {})
        finally:
            path = getattr(scope.get("route"), "path", "-")
            seconds = time.monotonic() - began
            log.info("%s %s %s %.2f s", scope["method"][:8], path, status, seconds)

    def _checked(self, scope: Scope) -> dict[str, str]:
        """The headers by name. Raises Refused."""
        pairs = [(k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in scope["headers"]]
        headers = dict(pairs)
        if sum(name == "host" for name, _ in pairs) != 1 or not self._is_here(headers["host"]):
            raise Refused(421, "the Host header does not name this server; use the printed address")
        self._check_origin(scope, headers)
        self._check_token(scope, headers)
        if scope["method"] in ("POST", "PUT", "PATCH", "DELETE"):
            if self.draining():
                raise Refused(503, "the server is stopping and takes no new request")
            self._check_body(headers)
        return headers

    def _is_here(self, host: str) -> bool:
        name = _host_name(host)
        if name in self.hosts:
            return True
        with suppress(ValueError):
            return self.any_address and bool(ipaddress.ip_address(name))
        return False

    def _check_origin(self, scope: Scope, headers: dict[str, str]) -> None:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        own = origin is None or origin in (
            f"http://{headers['host']}",
            f"https://{headers['host']}",
        )
        link = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if not own or (site not in ("same-origin", "none") and not link):
            raise Refused(403, "a page of another origin may not call this server")

    def _check_token(self, scope: Scope, headers: dict[str, str]) -> None:
        path = scope["path"]
        if self.token is None or path in _OPEN_PATHS or path.startswith(_ASSETS):
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(
            given.strip().encode(), self.token.encode()
        ):
            raise Refused(
                401,
                "this server needs its token: send 'Authorization: Bearer TOKEN'",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _check_body(self, headers: dict[str, str]) -> None:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _BODY_TYPES:
            raise Refused(415, f"the body must be {' or '.join(_BODY_TYPES)} (Content-Type)")
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or len(length) > 18:
            raise Refused(400, "Content-Length is not a whole number")
        if int(length) > self.limits.body:
            raise self._too_large()
        if headers.get("content-encoding", "identity") != "identity":
            raise Refused(415, "a compressed body is not taken; send it as it is")

    def _too_large(self) -> Refused:
        return Refused(413, f"the body is larger than {self.limits.body} bytes; send less")

    async def _pass_on(
        self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send
    ) -> None:
        if scope["method"] not in ("POST", "PUT", "PATCH", "DELETE"):
            await self.app(scope, receive, send)
            return
        chunks: list[bytes] = []
        try:
            is_json = headers["content-type"].lower().startswith("application/json")
            longest = self.limits.json_text if is_json else self.limits.body
            reading = self._read(chunks, receive, longest)
            await asyncio.wait_for(reading, self.limits.seconds)
            data = b"".join(chunks)
            if is_json and (data or scope["method"] == "POST"):
                scope[PARSED] = parse_json(data, self.limits)
            messages = [{"type": "http.request", "body": data, "more_body": False}]

            async def receiving() -> Message:
                return messages.pop() if messages else await receive()

            await self.app(scope, receiving, send)
        except TimeoutError as error:
            raise Refused(
                408, f"the body took longer than {self.limits.seconds:g} s to arrive"
            ) from error
        finally:
            self.held -= sum(map(len, chunks))
            chunks.clear()  # the frames of an error would keep them until they are collected

    async def _read(self, chunks: list[bytes], receive: Receive, longest: int) -> None:
        """The body, up to its limit. longest: bytes that may follow one another without a quote:
        an image that is too large is refused while it arrives, before it is parsed or decoded."""
        size, run, more = 0, 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "the request ended before its body did")
            chunk, more = message.get("body", b""), message.get("more_body", False)
            size, self.held = size + len(chunk), self.held + len(chunk)
            chunks.append(chunk)
            if size > self.limits.body:
                raise self._too_large()
            run, longest_here = _runs(run, chunk)
            if longest_here > longest:
                message = f"a text of the JSON is longer than {longest} bytes; an image may have "
                raise Refused(413, f"{message}{self.limits.image_bytes} bytes: make it smaller")
            if self.held > _BUFFERED_BODIES * self.limits.body:
                raise Refused(503, "too many large requests at once; try again later")


def _runs(before: int, chunk: bytes) -> tuple[int, int]:
    """Bytes since the last quote, and the longest run of bytes without one at either end of the
    chunk. before: bytes since the last quote before it."""
    first = chunk.find(b'"')
    if first < 0:
        return before + len(chunk), before + len(chunk)
    after = len(chunk) - chunk.rfind(b'"') - 1
    return after, max(before + first, after)


def _host_name(host: str) -> str:
    """Without the port: `[::1]:8000` -> `::1`."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


class _Arriving:
    """`receive`, which knows whether a body is still being sent."""

    def __init__(self, receive: Receive, scope: Scope) -> None:
        self.receive = receive
        # One who waits for a "100 Continue" sends nothing before it.
        self.ends = scope["method"] == "GET" or any(
            name == b"expect" for name, _ in scope["headers"]
        )

    async def __call__(self) -> Message:
        message = await self.receive()
        self.ends = self.ends or not message.get("more_body", False)
        return message


async def _send_refusal(refused: Refused, arriving: _Arriving, send: Send, most: int) -> None:
    """The answer at once; then what is still being sent is dropped for a moment, since a client
    that is cut off while it sends may not see the answer."""
    body = json.dumps(refused.body()).encode()
    await _start(send, refused.status, body, refused.headers)
    await send({"type": "http.response.body", "body": body, "more_body": True})
    dropped = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(2):
            while not arriving.ends and dropped <= 2 * most:
                dropped += len((await arriving()).get("body", b""))
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_json(send: Send, status: int, content: Any, headers: dict[str, str]) -> None:
    body = json.dumps(content).encode()
    await _start(send, status, body, headers)
    await send({"type": "http.response.body", "body": body})


async def _start(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    own = {"content-type": "application/json", "content-length": str(len(body))} | headers
    pairs = [(name.lower().encode(), value.encode()) for name, value in own.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


def _where(error: BaseException) -> str:
    """File and line of each frame of ours, without the message: it may hold a patient's text."""
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-4:])
