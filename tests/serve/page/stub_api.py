"""The API's contract with a model that always writes the same: what the page is tested against."""

import base64
import io
import json
import math
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from PIL import Image

from llava.serve.page import router

REPORT = (
    "The heart is mildly enlarged. There is a small left pleural effusion.\n\n"
    "No pneumothorax. The bones are intact."
)
HOSTILE = "<script>document.title='taken'</script> <img src=x onerror=alert(1)>. It's \"=1+1\"."
FILLS = ("The lungs are clear.", "No consolidation is seen.", "Mild edema.")
TEMPLATE = "The heart is [3]. [4] No pneumothorax."
SETTINGS = {
    "model": "stub",
    "decoders": ["auto", "canvas"],
    "defaults": {"decoder": "auto", "gen_length": 96, "temperature": 0.0, "steps": None},
    "limits": {
        "images": 3,
        "image_bytes": 2_000_000,
        "pixels": 10**8,
        "text": 4000,
        "gap_tokens": 64,
        "queue": 8,
    },
    "context_fields": ["indication", "comparison", "history", "technique", "prior_report"],
    "templates": [{"name": "Normal chest", "text": TEMPLATE}],
    "roles": ["frontal", "lateral", "prior frontal", "view"],
}
BLANK = re.compile(r"(?<!\\)\[\d+(?:-\d+)?\]")


class Problem(Exception):
    def __init__(self, status: int, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status, self.body = status, {"message": message, "type": "bad_request", "field": field}


def stub(token: str | None = None, pause: float = 0.0) -> FastAPI:
    """`app.state.asked`: the bodies of /v1/reports and /v1/log, in order. pause: between passes."""
    app = FastAPI()
    app.state.asked = []
    app.include_router(router())

    @app.exception_handler(Problem)
    async def _problem(_: Request, error: Problem) -> JSONResponse:
        return JSONResponse({"error": error.body}, error.status)

    def check(request: Request) -> None:
        if token and request.headers.get("authorization") != f"Bearer {token}":
            raise Problem(401, "this server needs its token")

    @app.get("/v1/settings")
    def settings(request: Request) -> dict:
        check(request)
        return SETTINGS

    @app.post("/v1/images")
    async def images(request: Request) -> dict:
        check(request)
        return preview(await request.json())

    @app.post("/v1/reports")
    async def reports(request: Request):
        check(request)
        body = await request.json()
        app.state.asked.append(body)
        if "unreadable" in body["context"].get("indication", ""):
            raise Problem(
                422, "context.indication holds a control character; remove it", "context.indication"
            )
        answer = write(body)
        if not body["stream"]:
            return answer
        return StreamingResponse(passes(answer, pause), media_type="text/event-stream")

    @app.post("/v1/audit")
    async def audit(request: Request) -> dict:
        body = await request.json()
        assert body["reference"] == REPORT
        said = re.split(r"(?<=\.)\s+", body["text"])
        marks = [mark(text) for text in said]
        findings = {"invented": ["Fracture"], "denied": ["Pleural Effusion"]}
        return {
            "missing": ["Cardiomegaly"],
            **{kind: names if kind in marks else [] for kind, names in findings.items()},
            "sentences": [
                {"text": text, "mark": kind, "findings": findings.get(kind, [])}
                for text, kind in zip(said, marks, strict=True)
            ],
            "reference_sentences": [
                {"text": REPORT, "mark": "missing", "findings": ["Cardiomegaly"]}
            ],
        }

    @app.post("/v1/log")
    async def log(request: Request) -> dict:
        app.state.asked.append(await request.json())
        return {}

    return app


def mark(text: str) -> str:
    if "fracture" in text:
        return "invented"
    if "No pleural effusion" in text:
        return "denied"
    return "agrees" if "pneumothorax" in text else "none"


def preview(body: dict) -> dict:
    data = base64.b64decode(body["data"].partition(",")[2])
    is_dicom = data[128:132] == b"DICM"
    if is_dicom:
        window = {"center": body.get("window_center", 1000), "width": body.get("window_width", 400)}
        image = Image.linear_gradient("L").point(lambda v: min(255, v * 400 // window["width"]))
    else:
        window = None
        try:
            image = Image.open(io.BytesIO(data))
        except OSError as error:
            raise Problem(
                415, "the file is not a JPEG, PNG or DICOM image; save it as one"
            ) from error
    png = io.BytesIO()
    image.convert("RGB").save(png, "PNG")
    url = "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
    kind = "DICOM" if is_dicom else image.format
    return {
        "png": url,
        "width": image.width,
        "height": image.height,
        "kind": kind,
        "window": window,
    }


def write(body: dict) -> dict:
    template = body["template"]
    text, gaps = HOSTILE if "hostile" in body["context"].get("indication", "") else REPORT, []
    if template:
        for _ in BLANK.findall(template):
            own = FILLS[len(gaps) % len(FILLS)]
            others = [fill for fill in FILLS if fill != own]
            alternatives = [
                {"text": other, "log_probability": -1.5 - i} for i, other in enumerate(others)
            ]
            gaps.append({"text": own, "log_probability": -0.5, "alternatives": alternatives})
        fills = iter(gaps)
        text = BLANK.sub(lambda _: next(fills)["text"], template)
    pieces = re.findall(r"\s*(?:\w{1,6}|[^\w\s])|\s+$", text)
    tokens = [
        {
            "text": piece,
            "log_probability": math.log((0.3, 0.55, 0.75, 0.9, 0.99)[i % 5]),
            "pass": 2 * (4 - i % 5) + i % 2,
        }
        for i, piece in enumerate(pieces)
    ]
    tokens.append({"text": "<|im_end|>", "log_probability": -0.001, "pass": 0})
    answer = {
        "id": "report-1",
        "model": "stub",
        "text": text,
        "tokens": tokens,
        "findings": {
            "present": ["Cardiomegaly"],
            "uncertain": ["Edema"],
            "absent": ["Pneumothorax"],
        },
        "ended": "cut" not in body["context"].get("indication", ""),
        "passes": 1 + max(token["pass"] for token in tokens),
        "seconds": 0.5,
    }
    return answer | ({"gaps": gaps} if template else {})


def passes(answer: dict, pause: float) -> Iterator[str]:
    for number in range(answer["passes"]):
        tokens = [
            {k: t[k] for k in ("text", "log_probability")}
            if t["pass"] <= number
            else {"text": None, "log_probability": None}
            for t in answer["tokens"]
        ]
        yield event("pass", {"pass": number + 1, "tokens": tokens, "text": ""})
        time.sleep(pause)
    yield event("report", answer)


def event(name: str, data: dict) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serve on a free loopback port; gives the address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(5)
