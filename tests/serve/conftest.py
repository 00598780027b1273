"""A writer, a server over it, and images as requests carry them."""

import base64

import pytest


@pytest.fixture(scope="session")
def serve_writer(tiny_checkpoint):
    from llava.writing.writer import ReportWriter

    return ReportWriter.from_pretrained(tiny_checkpoint, device="cpu")


@pytest.fixture(scope="session")
def block_writer(tiny_backbones):
    from llava.model.builder import build_from_backbones
    from llava.writing.writer import ReportWriter

    return ReportWriter(build_from_backbones(*tiny_backbones, attention_mode="block"))


@pytest.fixture(scope="session")
def picture_bytes(tiny_dataset):
    """The bytes of the tiny dataset's images."""
    folder = tiny_dataset.image_folder / "p10"
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@pytest.fixture(scope="session")
def pictures(picture_bytes):
    """The same as a request carries them."""
    return [base64.b64encode(data).decode() for data in picture_bytes]


@pytest.fixture(scope="session")
def serve_settings():
    """Of the tests' server: a short canvas, small limits."""
    for needed in ("fastapi", "uvicorn", "python_multipart", "httpx"):
        pytest.importorskip(needed, reason="the extra 'serve' is not installed")
    from llava.diffusion.config import SamplingConfig
    from llava.serve.app import Settings
    from llava.serve.refusals import Limits

    limits = Limits(
        images=3, image_bytes=40_000, pixels=250_000, text=500, gen_length=128, body=200_000
    )
    return Settings("tiny", SamplingConfig(gen_length=16), limits, rows=12)


@pytest.fixture(scope="module")
def address(serve_writer, serve_settings):
    from running import running

    from llava.serve.app import create_app

    with running(create_app(serve_writer, serve_settings)) as address:
        yield address


@pytest.fixture
def http(address):
    from running import client

    with client(address) as connected:
        yield connected
