"""What a client sends, checked: images, context, template, settings -> a writer's Request.

Whatever is wrong is Refused with the field's name. Uploads are decoded from memory; no text of a
request ever becomes a path.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from llava.constants import CLINICAL_FIELDS, IMAGE_PLACEHOLDER
from llava.data.prompt import CONTEXT_FIELDS, PRIOR_FIELD, human_turn
from llava.diffusion.config import SamplingConfig, check_keys, resolve_decoder
from llava.images.loading import OpenedImage, Window, open_image
from llava.model.checkpoint import check_sampling
from llava.serve.bodies import MOST_SEED, ReportIn, WindowIn
from llava.serve.refusals import Limits, Refused, brief
from llava.writing.templates import Blank, Template
from llava.writing.writer import Request

if TYPE_CHECKING:
    from llava.writing.writer import ReportWriter

ROLES = {
    "frontal": "Frontal",
    "lateral": "Lateral",
    "view": "View",
    "prior frontal": "Prior frontal",
    "prior lateral": "Prior lateral",
    "prior": "Prior view",
}
"""What a client calls an image -> the word that the prompt has before it."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ACTIVE = re.compile(
    r"<\s*+(?:/\s*+)?(?:script|iframe|object|embed|img|svg|style|link|meta|html|body|form)\b"
    r"|javascript:",
    re.IGNORECASE,
)
"""Markup that no clinical text holds; it is escaped wherever text is shown, and refused here."""
_NUMBERS = {"temperature": 10.0, "cfg_scale": 20.0, "factor": 1000.0, "entropy_bound": 1000.0}
"""The largest values of settings that have none of their own."""


class Reader:
    """Turns bodies into what a writer takes. defaults: settings where a client gives none."""

    def __init__(self, writer: ReportWriter, limits: Limits, defaults: SamplingConfig) -> None:
        self.writer, self.limits, self.defaults = writer, limits, defaults
        self.special = sorted(writer.tokenizer.get_added_vocab(), key=len, reverse=True)

    def request(
        self, body: ReportIn, sampling: SamplingConfig, uploads: Sequence[bytes] = ()
    ) -> Request:
        """uploads: of a multipart request, whose images come as bytes."""
        count = len(body.images) + len(uploads)
        self.check_images(count)
        roles = [one.role for one in body.images] + (body.roles or [None] * len(uploads))
        if len(roles) != count:
            message = f"{len(body.roles)} roles for {len(uploads)} uploaded images; give one each"
            raise Refused(422, message, "roles")
        # Text before images: what is wrong with it is said before anything is decoded.
        prompt, template = self._prompt(body.context, roles), self._template(body.template)
        opened = [
            self.image(one.data, f"images.{place}.data", one.window)
            for place, one in enumerate(body.images)
        ]
        opened += [self.picture(data, f"images.{i}") for i, data in enumerate(uploads)]
        return Request(tuple(one.image for one in opened), prompt, body.seed or 0, template)

    def sampling(self, given: Mapping[str, Any], has_template: bool) -> SamplingConfig:
        """The settings of a request over the server's own."""
        self._check_settings(given)
        changed: dict[str, Any] = dict(given)
        if {"gen_length", "block_length"} & set(given) or has_template:
            changed = {"block_length": None, "steps": None, **changed}
        try:
            check_keys("generation setting", given, [one.name for one in fields(SamplingConfig)])
            found = replace(self.defaults, **changed)
            check_sampling(self.writer.model.config.to_dict(), found)
            resolve_decoder(found, self.writer.model.config.attention_mode, has_template)
        except (ValueError, TypeError) as error:
            raise Refused(422, brief(error, 400), "sampling") from error
        if found.gen_length > self.limits.gen_length:
            message = f"gen_length={found.gen_length} is too long; at most {self.limits.gen_length}"
            raise Refused(422, message, "sampling.gen_length")
        return found

    def text(self, text: str, field: str) -> str:
        """Text that may go into a prompt or a template."""
        if len(text) > self.limits.text:
            raise Refused(
                422, f"{field} has {len(text)} characters; at most {self.limits.text}", field
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            message = f"{field} is not valid Unicode; fix its \\u escapes"
            raise Refused(422, message, field) from error
        for what, found in (
            ("control character", _CONTROL.search(text)),
            ("markup", _ACTIVE.search(text)),
        ):
            if found:
                raise Refused(422, f"{field} holds the {what} {found[0]!r}; remove it", field)
        for token in (*self.special, IMAGE_PLACEHOLDER):
            if token in text:
                raise Refused(422, f"{field} holds the special token {token}; remove it", field)
        return text

    def check_images(self, count: int) -> None:
        if count > self.limits.images:
            raise Refused(422, f"{count} images; at most {self.limits.images}", "images")
        if not count:
            raise Refused(422, "there is no image; give at least one", "images")

    def image(self, data: str, field: str, window: WindowIn | Window | None = None) -> OpenedImage:
        """Base64 or a data URL."""
        head, comma, rest = data.partition(",")
        if head[:5].lower() == "data:":
            if not comma or not head.lower().endswith(";base64"):
                raise Refused(422, f"{field} is a data URL without ';base64,'", field)
            data = rest
        if len(data) > self.limits.image_bytes * 4 // 3 + 4:
            raise self._too_large(field)
        try:
            decoded = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            message = f"{field} is neither base64 nor a data URL of an image; a path or an address"
            raise Refused(422, f"{message} is not taken", field) from error
        if window is not None:
            window = Window(window.center, window.width)
        return self.picture(decoded, field, window)

    def picture(self, data: bytes, field: str, window: Window | None = None) -> OpenedImage:
        """Raises Refused for bytes that are not an image, or one that is too large."""
        if len(data) > self.limits.image_bytes:
            raise self._too_large(field)
        if not data:
            raise Refused(422, f"{field} is empty", field)
        try:
            return open_image(data, field, self.limits.pixels, window)
        except (ValueError, OSError, MemoryError) as error:
            raise Refused(422, brief(error, 300), field) from error

    def _too_large(self, field: str) -> Refused:
        return Refused(
            413, f"{field} is larger than {self.limits.image_bytes} bytes; make it smaller", field
        )

    def _prompt(self, context: Mapping[str, str], roles: Sequence[str | None]) -> str:
        """A single frontal view needs no word before it, as in training on single images."""
        for name, text in context.items():
            if name not in CONTEXT_FIELDS:
                message = f"context has no field {brief(name, 30)!r}; known: "
                raise Refused(422, message + ", ".join(CONTEXT_FIELDS), "context")
            self.text(text, f"context.{name}")
        for place, role in enumerate(roles):
            if role is not None and role not in ROLES:
                message = f"role {brief(role, 30)!r} is unknown; known: {', '.join(ROLES)}"
                raise Refused(422, message, f"images.{place}.role")
        clinical = {name: context.get(name) for name in CLINICAL_FIELDS}
        single = len(roles) == 1 and roles[0] in (None, "frontal")
        words = () if single else [ROLES[role or "view"] for role in roles]
        return human_turn(clinical, words, context.get(PRIOR_FIELD))

    def _template(self, text: str | None) -> Template | None:
        if text is None:
            return None
        try:
            found = Template.parse(self.text(text, "template"))
        except ValueError as error:
            raise Refused(422, brief(error, 300), "template") from error
        longest = max(part.longest for part in found.parts if isinstance(part, Blank))
        if longest > self.limits.gap_tokens:
            message = f"a blank of {longest} tokens is too long; at most {self.limits.gap_tokens}"
            raise Refused(422, message, "template")
        return found

    def _check_settings(self, given: Mapping[str, Any]) -> None:
        for name, value in given.items():
            field = f"sampling.{brief(name, 30)}"
            if name == "step" and value != "eager":
                raise Refused(422, "step can only be 'eager' here", field)
            if isinstance(value, int | float) and not isinstance(value, bool):
                most = _NUMBERS.get(name, MOST_SEED)
                if not -MOST_SEED <= value <= most:
                    raise Refused(422, f"{field} must be at most {most:g}", field)
            if name == "stop":
                stops = [value] if isinstance(value, str) else value
                if not isinstance(stops, list) or len(stops) > 4:
                    raise Refused(422, "stop must be text, or a list of at most 4", field)
                for stop in stops:
                    if not isinstance(stop, str) or not 0 < len(stop) <= 100:
                        raise Refused(422, "each stop must be text of 1 to 100 characters", field)
