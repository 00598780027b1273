"""What a client reads of a stream, and what the writer gives a single request."""

import json

from llava.constants import ASSISTANT_PROMPT
from llava.diffusion.config import SamplingConfig
from llava.images.loading import open_image
from llava.writing.writer import Request

SAMPLING = SamplingConfig(gen_length=16)


def events(response):
    """(event, data) of a stream of server-sent events."""
    found = []
    for block in response.text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        data = fields["data"]
        found.append((fields.get("event"), data if data == "[DONE]" else json.loads(data)))
    return found


def alone(writer, picture, prompt=ASSISTANT_PROMPT, sampling=SAMPLING, **options):
    """What the writer gives a single request."""
    request = Request((open_image(picture, "image").image,), prompt, **options)
    return writer.write([request], sampling)[0]
