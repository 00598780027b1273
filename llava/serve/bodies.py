"""What each call takes: the fields of its JSON, and how a body or a form is read into them.

Everything stays in memory: no part of a form becomes a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from llava.images.loading import Window
from llava.serve.guard import PARSED
from llava.serve.refusals import Limits, Refused, brief, parse_json

if TYPE_CHECKING:
    from starlette.requests import Request

MOST_SEED = 2**31 - 1


class Body(BaseModel):
    """Unknown fields are refused, and so is text where a number belongs."""

    model_config = ConfigDict(extra="forbid", strict=True)


class WindowIn(Body):
    """Of a DICOM, in place of its own."""

    center: Annotated[float, Field(allow_inf_nan=False)]
    width: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ImageIn(Body):
    """data: base64 or a data URL. role: one of `roles` in /v1/settings."""

    data: str
    role: str | None = None
    window: WindowIn | None = None


class ReportIn(Body):
    """A report to write. context: text by field. template: text to keep, with blanks `[n]` or
    `[a-b]` tokens long. roles: of the images of a form. alternatives: further fills of each blank.
    sampling: decoding settings.
    """

    images: Annotated[list[ImageIn], FailFast()] = []
    roles: Annotated[list[str], FailFast()] = []
    context: dict[str, str] = {}
    template: str | None = None
    sampling: dict[str, Any] = {}
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] | None = None
    stream: bool = False
    alternatives: Annotated[int, Field(ge=0, le=5)] = 2


class PictureIn(Body):
    """An image to look at, with another window if it is a DICOM."""

    data: str
    window_center: Annotated[float, Field(allow_inf_nan=False)] | None = None
    window_width: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    def window(self) -> Window | None:
        if (self.window_center is None) != (self.window_width is None):
            raise Refused(422, "window_center and window_width go together", "window_center")
        return None if self.window_width is None else Window(self.window_center, self.window_width)


class AuditIn(Body):
    """A typed draft, and the model's own report to compare it with."""

    text: str
    reference: str


class LogIn(Body):
    """An edit of a reader study; appended under --log-dir."""

    sample_id: str
    images: list[str] | str = []
    indication: str = ""
    candidate: str = ""
    final: str = ""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    edits: Any = None


class _MemoryParser(MultiPartParser):
    """Keeps every part in memory: the whole body is bounded already, and no file is made of it."""

    spool_max_size = 1 << 40


async def read_body(
    http: Request, field: str, files: str, limits: Limits
) -> tuple[Any, list[bytes]]:
    """The JSON of a request, and the uploads of a multipart one. Raises Refused."""
    if PARSED in http.scope:
        return http.scope[PARSED], []
    parser = _MemoryParser(
        http.headers,
        http.stream(),
        max_files=limits.images + 1,
        max_fields=1,
        max_part_size=1 << 20,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise Refused(400, f"the form cannot be read: {brief(error, 120)}") from error
    content, uploads = {}, []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile) and name == files:
            uploads.append(await value.read())
        elif isinstance(value, str) and name == field:
            content = parse_json(value.encode(errors="surrogatepass"), limits)
        else:
            raise Refused(
                422, f"the form takes files {files!r} and the field {field!r}", brief(name)
            )
    return content, uploads


def validated(model: type[Body], content: Any) -> Any:
    if not isinstance(content, dict):
        raise Refused(422, "the body must be a JSON object")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = brief(".".join(map(str, first["loc"])), 80)
        raise Refused(422, f"{place}: {brief(first['msg'], 200)}", place) from error


def number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise Refused(422, f"{brief(name)} is not a number", brief(name)) from error


def described(model: type[Body], files: str) -> dict[str, Any]:
    """The OpenAPI description of a body that comes as JSON or as a form."""
    form = {
        "type": "object",
        "properties": {
            files: {"type": "array", "items": {"type": "string", "format": "binary"}},
            "request": {"type": "string"},
        },
    }
    content = {
        "application/json": {"schema": model.model_json_schema()},
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"content": content, "required": True}}
