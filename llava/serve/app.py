"""The app: every path of the API, over one engine, inside the guard."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse

from llava.data.prompt import CONTEXT_FIELDS
from llava.diffusion.config import DECODERS, SamplingConfig, resolve_decoder
from llava.images.loading import OpenedImage
from llava.serve import openai, reference
from llava.serve.answers import Answers, audit, new_id, sse, to_json
from llava.serve.asking import Asked, Asker
from llava.serve.bodies import (
    AuditIn,
    LogIn,
    PictureIn,
    ReportIn,
    described,
    number,
    read_body,
    validated,
)
from llava.serve.engine import Engine
from llava.serve.guard import Guard
from llava.serve.jobs import Finished
from llava.serve.log import StudyLog
from llava.serve.refusals import Limits, Refused, add_handlers
from llava.serve.requests import ROLES, Reader
from llava.writing.writer import ReportWriter

DESCRIPTION = (
    "Drafts of chest X-ray reports by a masked-diffusion model. For research only: not a medical "
    "device; confidence is the model's own, not clinical certainty."
)
TEMPLATES = {
    "Normal study": "The lungs are [1-4]. The heart is [1-4]. No pleural effusion or pneumothorax.",
    "By organ": "Lungs: [3-6].\nPleura: [3-6].\nHeart: [3-6].",
    "Effusion": "There is [2-6] pleural effusion. [8]",
}


@dataclass(frozen=True)
class Settings:
    """How a server answers. name: of the model. defaults: decoding settings of a request that
    gives none. hosts, any_address, token: as in `Guard`. log_dir: where drafts.csv goes."""

    name: str
    defaults: SamplingConfig = field(default_factory=SamplingConfig)
    limits: Limits = field(default_factory=Limits)
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "::1")
    any_address: bool = False
    token: str | None = None
    rows: int = 32
    log_dir: Path | None = None


def create_app(writer: ReportWriter, settings: Settings) -> Guard:
    """A started engine inside the app, inside the guard; the guard has both as attributes."""
    engine = Engine(writer, settings.limits.queue, settings.rows)
    app = FastAPI(
        title=f"llava.serve: {settings.name}",
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    add_handlers(app)
    _add_paths(app, engine, settings)
    engine.start()
    guard = Guard(
        app,
        settings.limits,
        settings.hosts,
        settings.token,
        settings.any_address,
        lambda: engine.draining,
    )
    guard.engine = engine
    return guard


def _add_paths(app: FastAPI, engine: Engine, settings: Settings) -> None:
    reader = Reader(engine.writer, settings.limits, settings.defaults)
    answers, asker = Answers(engine.writer, settings.name), Asker(engine)
    _add_state(app, engine, settings)
    _add_reports(app, reader, answers, asker)
    _add_helpers(app, reader, asker, settings)
    app.include_router(openai.router(reader, asker, answers))
    if find_spec("llava.serve.page") is not None:
        app.include_router(import_module("llava.serve.page").router())


def _add_state(app: FastAPI, engine: Engine, settings: Settings) -> None:
    own = {"id": settings.name, "object": "model", "created": int(time.time())}
    own["owned_by"] = "local"
    decoders = _decoders(engine.writer.model.config.attention_mode)

    @app.get("/healthz", summary="Whether it takes requests")
    async def health() -> dict[str, Any]:
        status = "draining" if engine.draining else "ok"
        return {"status": status, "waiting": engine.waiting, "decoding": engine.decoding}

    @app.get("/v1/models", summary="The one model, in OpenAI's form")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [own]}

    @app.get("/v1/models/{name:path}", summary="The same, by its name")
    async def model(name: str) -> dict[str, Any]:
        openai.check_model(name, settings.name)
        return own

    @app.get("/v1/settings", summary="Defaults, decoders, limits, roles of images, named templates")
    async def shown() -> dict[str, Any]:
        return {
            "model": settings.name,
            "decoders": decoders,
            "defaults": asdict(settings.defaults),
            "limits": settings.limits.shown(),
            "context_fields": list(CONTEXT_FIELDS),
            "templates": [{"name": name, "text": text} for name, text in TEMPLATES.items()],
            "roles": list(ROLES),
            "log": settings.log_dir is not None,
        }

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(reference.page(app.openapi()))


def _decoders(attention_mode: str) -> list[str]:
    """Those that a checkpoint of this mode can do."""
    found = []
    for name in DECODERS:
        with suppress(ValueError):
            resolve_decoder(SamplingConfig(decoder=name), attention_mode)
            found.append(name)
    return found


def _add_reports(app: FastAPI, reader: Reader, answers: Answers, asker: Asker) -> None:
    @app.post(
        "/v1/reports",
        summary="Write a report, or fill the blanks of a template",
        openapi_extra=described(ReportIn, "images"),
    )
    async def write(http: Request) -> Any:
        """Streamed, the events are `pass` (the canvas after each pass), then `report` or `error`.

        As multipart/form-data: files `images`, and the other fields as JSON in the field `request`.
        """
        content, uploads = await read_body(http, "request", "images", reader.limits)
        body = validated(ReportIn, content)
        if body.template is not None:
            reader.text(body.template, "template")
        sampling = reader.sampling(body.sampling, body.template is not None)
        name = new_id("report")
        asked = await asker.ask(
            lambda: reader.request(body, sampling, uploads),
            sampling,
            streams=body.stream,
            alternatives=body.alternatives if body.template is not None else 0,
        )
        if body.stream:
            return StreamingResponse(_stream(name, asked, answers), media_type="text/event-stream")
        finished = await asked.result(http)
        return JSONResponse(answers.report(name, asked.job, finished, asked.seconds))


async def _stream(name: str, asked: Asked, answers: Answers) -> AsyncIterator[bytes]:
    try:
        async for event in asked.events():
            if isinstance(event, Finished):
                yield sse("report", answers.report(name, asked.job, event, asked.seconds))
            else:
                yield sse("pass", answers.passed(event, asked.job))
    except Refused as refused:
        yield sse("error", refused.body())


def _add_helpers(app: FastAPI, reader: Reader, asker: Asker, settings: Settings) -> None:
    log = settings.log_dir and StudyLog(settings.log_dir)

    @app.post(
        "/v1/images",
        summary="An image as the model sees it first",
        openapi_extra=described(PictureIn, "file"),
    )
    async def picture(http: Request) -> Any:
        """As multipart/form-data: one file `file`; another window then goes into the query."""
        content, uploads = await read_body(http, "request", "file", reader.limits)
        query = {name: number(value, name) for name, value in http.query_params.items()}
        if uploads:
            content = {"data": "", **content}
        body = validated(PictureIn, {**content, **query})
        window = body.window()
        if len(uploads) > 1 or bool(uploads) == bool(body.data):
            raise Refused(422, "give one image", "file")

        def shown() -> dict[str, Any]:
            if uploads:
                return _shown(reader.picture(uploads[0], "file", window))
            return _shown(reader.image(body.data, "data", window))

        return JSONResponse(await asker.run(shown))

    @app.post("/v1/audit", summary="A typed draft against the model's own report")
    async def check(body: AuditIn) -> Any:
        for name in ("text", "reference"):
            reader.text(getattr(body, name), name)
        return JSONResponse(await asker.run(lambda: audit(body.text, body.reference)))

    @app.post("/v1/log", summary="Append an edited report to the study's log")
    async def note(body: LogIn) -> dict[str, Any]:
        if log is None:
            raise Refused(404, "this server keeps no log; start it with --log-dir")
        for name in ("sample_id", "indication", "candidate", "final"):
            if len(getattr(body, name)) > reader.limits.text:
                raise Refused(422, f"{name} is longer than {reader.limits.text} characters", name)
        size, most = sum(map(len, body.images)) + len(to_json(body.edits)), reader.limits.log
        if size > most:
            raise Refused(413, f"images and edits have {size} characters; at most {most}")
        await asker.run(lambda: log.append(body))
        return {"logged": True}


def _shown(opened: OpenedImage) -> dict[str, Any]:
    png = io.BytesIO()
    opened.image.save(png, "PNG", compress_level=1)
    return {
        "png": "data:image/png;base64," + base64.b64encode(png.getvalue()).decode(),
        "width": opened.image.width,
        "height": opened.image.height,
        "kind": opened.kind,
        "window": opened.window and opened.window._asdict(),
    }
