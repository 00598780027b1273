"""A writer, and what it writes alone, for the tests of the server."""

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
