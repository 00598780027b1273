"""POST /v1/chat/completions in OpenAI's form: one user message with images, streamed or not.

A stream only ever adds text, and a canvas is decided in any order: what is sent is the text that
is settled from the left.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, FailFast, Field

from llava.constants import IMAGE_PLACEHOLDER, QUESTION
from llava.serve.answers import Answers, new_id, sse
from llava.serve.bodies import MOST_SEED, Body
from llava.serve.jobs import Finished
from llava.serve.refusals import Refused, brief
from llava.serve.requests import Reader
from llava.writing.writer import Request as ReportRequest

if TYPE_CHECKING:
    from llava.diffusion.config import SamplingConfig
    from llava.serve.asking import Asked, Asker

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "top_p": (1, 1.0),
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "logit_bias": ({},),
    "tools": ([],),
    "top_logprobs": (0,),
    "best_of": (1,),
}
"""Fields that change nothing at these values, which clients send; at others they are refused."""
_IGNORED = frozenset({"user", "metadata", "store", "service_tier"})


class ImageUrl(Body):
    url: str
    detail: str | None = None


class Part(Body):
    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None


class Message(BaseModel):
    model_config = ConfigDict(extra="ignore")
    role: Literal["user", "system", "assistant", "developer", "tool"]
    content: str | list[Part] | None = None


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatIn(BaseModel):
    """OpenAI's fields that are understood; others are refused unless they change nothing."""

    model_config = ConfigDict(extra="allow")
    model: str
    messages: Annotated[list[Message], FailFast(), Field(min_length=1)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] | None = None
    stop: str | list[str] | None = None
    logprobs: bool | None = False
    sampling: dict[str, Any] = {}


def router(reader: Reader, asker: Asker, answers: Answers) -> APIRouter:
    api = APIRouter()

    @api.post("/v1/chat/completions", summary="OpenAI's form of a request")
    async def complete(body: ChatIn, http: Request) -> Any:
        check_model(body.model, answers.model)
        _check_rest(body.model_extra or {})
        sampling = _sampling(body, reader)
        asked = await asker.ask(lambda: _request(body, reader), sampling, streams=bool(body.stream))
        wants_usage = body.stream_options is not None and body.stream_options.include_usage
        chat = _Chat(answers, asked, bool(body.logprobs), wants_usage)
        if body.stream:
            return StreamingResponse(chat.stream(), media_type="text/event-stream")
        return JSONResponse(chat.whole(await asked.result(http)))

    return api


def check_model(name: str, own: str) -> None:
    if name != own:
        message = f"model {brief(name, 60)!r} is not here; this is {own!r}"
        raise Refused(404, message, "model")


def _check_rest(rest: dict[str, Any]) -> None:
    for name, value in rest.items():
        if name in _IGNORED or value is None or value in _NEUTRAL.get(name, ()):
            continue
        if name == "response_format" and value == {"type": "text"}:
            continue
        raise Refused(422, f"{brief(name, 40)} is not supported; leave it out", brief(name, 40))


def _sampling(body: ChatIn, reader: Reader) -> SamplingConfig:
    """max_tokens is a limit: it can only make the canvas shorter."""
    given = dict(body.sampling)
    limit = body.max_completion_tokens or body.max_tokens
    length = given.get("gen_length", reader.defaults.gen_length)
    if limit is not None and isinstance(length, int) and limit < length:
        given["gen_length"] = limit
    for name in ("temperature", "stop"):
        if (value := getattr(body, name)) is not None:
            given[name] = value
    return reader.sampling(given, has_template=False)


def _request(body: ChatIn, reader: Reader) -> ReportRequest:
    if len(body.messages) != 1 or body.messages[0].role != "user":
        raise Refused(
            422,
            "messages must be one message of role 'user': the model answers a single question, "
            "and has a system prompt of its own",
            "messages",
        )
    content = body.messages[0].content or ""
    parts = [Part(type="text", text=content)] if isinstance(content, str) else content
    texts, images = [], []
    for place, part in enumerate(parts):
        field = f"messages.0.content.{place}"
        if part.type == "text":
            texts.append(part.text or "")
        elif part.image_url is None:
            raise Refused(422, f"{field} has no image_url", field)
        elif part.image_url.url[:5].lower() != "data:":
            message = f"{field}.image_url.url must be a data URL; nothing is fetched or opened"
            raise Refused(422, message, field)
        else:
            images.append((part.image_url.url, f"{field}.image_url.url"))
    reader.check_images(len(images))
    opened = tuple(reader.image(data, field).image for data, field in images)
    return ReportRequest(opened, _prompt(texts, len(images), reader), body.seed or 0)


def _prompt(texts: list[str], images: int, reader: Reader) -> str:
    """The text, with the images before it unless it says itself where they are."""
    text = "\n".join(text for text in texts if text.strip()).strip() or QUESTION
    pieces = text.split(IMAGE_PLACEHOLDER)
    for piece in pieces:
        reader.text(piece, "messages.0.content")
    if len(pieces) == 1:
        return f"{IMAGE_PLACEHOLDER}\n" * images + text
    if len(pieces) - 1 != images:
        message = f"the text has {len(pieces) - 1} {IMAGE_PLACEHOLDER} for {images} images"
        raise Refused(422, message, "messages.0.content")
    return text


class _Chat:
    """The answer to one request, in chunks or whole."""

    def __init__(
        self, answers: Answers, asked: Asked, logprobs: bool, wants_usage: bool = False
    ) -> None:
        self.answers, self.asked = answers, asked
        self.logprobs, self.wants_usage = logprobs, wants_usage
        self.head = {
            "id": new_id("chatcmpl"),
            "created": int(time.time()),
            "model": answers.model,
        }

    def whole(self, finished: Finished) -> dict[str, Any]:
        report = finished.report
        return {
            **self.head,
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": report.text},
                    "finish_reason": _reason(finished),
                    "logprobs": self._logprobs(finished),
                }
            ],
            "usage": self._usage(finished),
        }

    async def stream(self) -> AsyncIterator[bytes]:
        sent = ""
        yield self._chunk({"role": "assistant", "content": ""})
        try:
            async for event in self.asked.events():
                if isinstance(event, Finished):
                    yield self._chunk({"content": event.report.text[len(sent) :]})
                    yield self._chunk({}, _reason(event), self._logprobs(event))
                    if self.wants_usage:
                        yield self._event([], usage=self._usage(event))
                    yield sse(None, "[DONE]")
                elif more := self.answers.settled(event, self.asked.job)[len(sent) :]:
                    sent += more
                    yield self._chunk({"content": more})
        except Refused as refused:
            yield sse(None, refused.body())

    def _chunk(
        self, delta: dict[str, str], reason: str | None = None, logprobs: Any = None
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": logprobs}
        return self._event([choice])

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        form = {"object": "chat.completion.chunk", "choices": choices}
        return sse(None, {**self.head, **form, **more})

    def _usage(self, finished: Finished) -> dict[str, int]:
        """An image counts as one token of the prompt."""
        prompt, written = len(self.asked.job.prepared.ids), len(finished.report.token_ids)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
        }

    def _logprobs(self, finished: Finished) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        return {
            "content": [
                {
                    "token": token["text"],
                    "logprob": token["log_probability"],
                    "bytes": list(token["text"].encode()),
                    "top_logprobs": [],
                }
                for token in self.answers.tokens(finished)
            ]
        }


def _reason(finished: Finished) -> str:
    return "stop" if finished.report.ended else "length"
