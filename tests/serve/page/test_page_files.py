"""The drafting page's files: which are served, as what, and under which policy."""

import re
from html.parser import HTMLParser

import pytest

pytest.importorskip("fastapi", reason='the page is served by FastAPI: pip install -e ".[serve]"')

from fastapi import FastAPI
from fastapi.testclient import TestClient

from llava.serve.page import router

FILES = ("page.css", "theme.css", "icon.svg", "main.js", "parts.js", "report.js")


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    app.include_router(router())
    return TestClient(app)


class Elements(HTMLParser):
    """All start tags of a page with their attributes, and its text inside script and style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_every_answer_forbids_scripts_of_others_and_inline(client):
    for path in ("/", *(f"/assets/{name}" for name in FILES)):
        answer = client.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_files_have_their_types(client):
    kinds = {"css": "text/css", "svg": "image/svg+xml", "js": "text/javascript"}
    for name in FILES:
        kind = client.get(f"/assets/{name}").headers["content-type"]
        assert kind.startswith(kinds[name.rpartition(".")[2]])
    assert client.get("/").headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    "name",
    [
        "none.js",
        "__init__.py",
        "../page.html",
        "..%2f__init__.py",
        "%2e%2e/%2e%2e/__init__.py",
        "a/b",
    ],
)
def test_other_names_are_not_files(client, name):
    assert client.get(f"/assets/{name}").status_code == 404


def test_the_page_has_no_inline_script_or_style_and_names_only_its_own_files(client):
    elements = Elements(client.get("/").text).found
    named = {a for _, attrs in elements for a in attrs if a.startswith("on") or a == "style"}
    assert not named
    assert all(attrs.get("src") for tag, attrs in elements if tag == "script")
    assert not [tag for tag, _ in elements if tag in ("style", "iframe", "object", "base")]
    links = [attrs.get("src") or attrs.get("href") for _, attrs in elements]
    for link in filter(None, links):
        assert link.startswith("#") or client.get(link).status_code == 200


def test_scripts_import_what_is_served_and_never_set_markup(client):
    names = {"main.js"}
    while True:
        texts = {name: client.get(f"/assets/{name}").text for name in names}
        imported = {m for text in texts.values() for m in re.findall(r'from "\./([\w.]+)"', text)}
        if imported <= names:
            break
        names |= imported
    for name, text in texts.items():
        forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|https?:"
        assert not re.findall(forbidden, text), name
    assert len(names) > 10


def test_controls_have_names(client):
    """Every field is inside a label, or has a label for it, or an aria-label."""
    html = client.get("/").text
    labels = re.findall(r"<label.*?</label>", html, re.S)
    for tag, attrs in Elements(html).found:
        if tag not in ("input", "textarea", "select"):
            continue
        name = f'"{attrs["id"]}"'
        assert attrs.get("aria-label") or any(name in label for label in labels), name
