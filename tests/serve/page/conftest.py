"""A browser with the drafting page open, once for all tests of the page.

What an extra brings is imported where it is used: the tests skip, with the reason, without it.
"""

import pytest
from PIL import Image

from bench.report_page import chromium


@pytest.fixture(scope="session")
def chrome():
    try:
        with chromium() as browser:
            browser.set_script_timeout(10)
            yield browser
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def app():
    from stub_api import stub

    return stub()


@pytest.fixture(scope="session")
def address(app):
    from stub_api import running

    with running(app) as url:
        yield url


@pytest.fixture
def page(chrome, address, app):
    """The page freshly opened; its console must stay silent."""
    from browsing import new_case, open_page

    app.state.asked.clear()
    fresh = (
        "return document.documentElement.dataset.ready && !document.querySelector('dialog[open]')"
    )
    if chrome.current_url == address and chrome.execute_script(fresh):
        new_case(chrome)
    else:
        open_page(chrome, address)
    yield chrome
    assert chrome.get_log("browser") == []


@pytest.fixture(scope="session")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "frontal.png"
    Image.linear_gradient("L").resize((64, 48)).save(path)
    return path


@pytest.fixture(scope="session")
def dicom(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "lateral.dcm"
    path.write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 64)
    return path
