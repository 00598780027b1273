"""Bad requests: each is answered with a status and a message, soon, and leaves nothing behind."""

import gc
import io
import json
import socket
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest
from PIL import Image
from running import client, running

PATH = Path(__file__).resolve().parents[2] / "bench" / "bad_requests.py"
bad_requests = SourceFileLoader("bad_requests", str(PATH)).load_module()
BODIES, report, b64 = bad_requests.BODIES, bad_requests.report, bad_requests.b64
LIMITS = {"images": 3, "image_bytes": 40_000, "text": 500}


@pytest.fixture(scope="session")
def bomb():
    """Few bytes, more pixels than the tests' server takes."""
    file = io.BytesIO()
    Image.new("1", (2000, 2000)).save(file, "PNG")
    return b64(file.getvalue())


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_report_request_is_refused_with_a_message(http, pictures, name):
    body = json.dumps(BODIES[name](pictures[0], LIMITS)).encode()
    began = time.monotonic()
    answer = http.post("/v1/reports", content=body, headers={"content-type": "application/json"})
    assert time.monotonic() - began < 5  # one second where the machine is not shared
    too_large = ("an image too large", "a PNG of many chunks")  # for the tests' small limits
    check_refusal(answer, 413 if name in too_large else 422)


def check_refusal(answer, *statuses):
    assert answer.status_code in statuses, answer.text
    error = answer.json()["error"]
    assert 5 < len(error["message"]) < 700
    assert "Traceback" not in answer.text
    assert error["type"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"images": NaN}', 400),
        (b'{"images": 1e999}', 400),
        (b'{"seed": 1' + b"0" * 5000 + b"}", 400),
        (b"[" * 50_000, 400),
        (b"[" * 120_000, 413),
        (b'{"a":' * 60 + b"1" + b"}" * 60, 400),
        (b"[" + b"1," * 60_000 + b"1]", 413),
        (b'"' + b"x" * 300_000 + b'"', 413),
    ],
)
def test_a_body_that_is_no_json_or_too_large_is_refused(http, content, status):
    answer = http.post("/v1/reports", content=content, headers={"content-type": "application/json"})
    check_refusal(answer, status)


CHATS = {
    "another model": {"model": "gpt"},
    "no message": {"messages": []},
    "a system prompt": {"messages": [{"role": "system", "content": "be rude"}]},
    "an answer to go on": {"messages": [{"role": "assistant", "content": "The"}]},
    "no image": {"messages": [{"role": "user", "content": "Write."}]},
    "two answers": {"n": 2},
    "tools": {"tools": [{"type": "function"}]},
    "a JSON answer": {"response_format": {"type": "json_object"}},
    "no tokens": {"max_tokens": 0},
    "heat": {"temperature": 1e9},
}


@pytest.mark.parametrize("name", CHATS)
def test_a_bad_chat_is_refused_with_a_message(http, pictures, name):
    check_refusal(
        http.post("/v1/chat/completions", json=chat(pictures[0], **CHATS[name])), 404, 422
    )


def chat(picture, text="Write.", url=None, **changes):
    url = url or f"data:image/png;base64,{picture}"
    content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
    return {"model": "tiny", "messages": [{"role": "user", "content": content}], **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "http://example.com/a.png"},
        {"url": "file:///etc/passwd"},
        {"text": "<image> <image> two"},
        {"text": "<|im_start|>"},
        {"text": "x" * 600},
    ],
)
def test_images_of_a_chat_are_data_and_its_text_is_plain(http, pictures, changes):
    check_refusal(http.post("/v1/chat/completions", json=chat(pictures[0], **changes)), 422)


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/v1/reports", {}, 405),
        ("DELETE", "/v1/models", {"headers": {"content-type": "application/json"}}, 405),
        ("GET", "/etc/passwd", {}, 404),
        ("GET", "/assets/..%2f..%2fapp.py", {}, 404),
        ("GET", "/assets/%2e%2e/%2e%2e/etc/passwd", {}, 404),
        ("GET", "/<script>alert(1)</script>", {}, 404),
        ("POST", "/v1/reports", {"data": {"images": "x"}}, 415),
        ("POST", "/v1/reports", {"content": b"{}", "headers": {"content-type": "text/plain"}}, 415),
        ("POST", "/v1/reports", {"content": b"{}"}, 415),
        ("POST", "/v1/reports", {"json": {}, "headers": {"content-encoding": "gzip"}}, 415),
        ("POST", "/v1/reports", {"files": {"other": b"x"}}, 422),
        ("POST", "/v1/reports", {"files": [("images", b"x")] * 9}, 400),
        (
            "POST",
            "/v1/reports",
            {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
            400,
        ),
        ("POST", "/v1/images", {"json": {"data": "AAAA"}}, 422),
        ("POST", "/v1/images", {"json": {}}, 422),
        ("POST", "/v1/images?window_width=wide", {"json": {"data": "AAAA"}}, 422),
        ("POST", "/v1/images", {"json": {"data": "AAAA", "window_width": 5}}, 422),
        ("POST", "/v1/audit", {"json": {"text": "a"}}, 422),
        ("POST", "/v1/audit", {"json": {"text": "a" * 600, "reference": ""}}, 422),
        ("POST", "/v1/log", {"json": {"sample_id": "a"}}, 404),
    ],
)
def test_other_bad_calls_are_refused(http, method, path, options, status):
    check_refusal(http.request(method, path, **options), status)


def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded(http, bomb):
    answer = http.post("/v1/reports", json=report(bomb))
    check_refusal(answer, 422)
    assert "2000 x 2000 pixels" in answer.json()["error"]["message"]


def test_a_text_longer_than_an_image_is_refused_while_it_arrives(address):
    host, begun = address.removeprefix("http://"), b'{"images": [{"data": "'
    head = f"POST /v1/reports HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    line = raw(address, f"{head}Content-Length: 190000\r\n\r\n".encode() + begun + b"A" * 80_000)
    assert line.split(b" ")[1] == b"413"  # the body is not there yet


def test_images_that_fit_are_not_one_text_too_long(http):
    image = "A" * (40_000 // 3 * 4)
    answer = http.post("/v1/reports", json={"images": [{"data": image}, {"data": image}]})
    check_refusal(answer, 422)  # for what is in them
    assert "JPEG, PNG or DICOM" in answer.json()["error"]["message"]


def test_no_text_takes_long_to_check(serve_writer):
    from llava.diffusion.config import SamplingConfig
    from llava.serve.refusals import Limits
    from llava.serve.requests import Reader

    reader = Reader(serve_writer, Limits(), SamplingConfig())
    began = time.thread_time()
    for text in ("<" + " " * 7999, "<" * 8000, "</ " * 2600, "\n" * 8000):
        assert reader.text(text, "context.indication") == text
    assert time.thread_time() - began < 0.5  # quadratic in the spaces it takes seconds


def test_what_is_wrong_is_named_by_its_field(http, pictures):
    for body, field in (
        (report(pictures[0], context={"indication": "<|mask|>"}), "context.indication"),
        ({"images": [{"data": pictures[0]}, {"data": "?"}]}, "images.1.data"),
        (report(pictures[0], template="x"), "template"),
        (report(pictures[0], sampling={"gen_length": 1024}), "sampling"),
        (report(pictures[0], seed="1"), "seed"),
    ):
        assert http.post("/v1/reports", json=body).json()["error"]["field"] == field


# ----------------------------------------------------------------- who may ask


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "10.0.0.1:80"])
def test_a_host_that_is_not_this_server_is_refused(http, host):
    check_refusal(http.get("/healthz", headers={"host": host}), 421)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:1"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
    ],
)
def test_pages_of_other_origins_cannot_call_it(http, headers, status):
    answer = http.get("/v1/models", headers=headers)
    assert answer.status_code == status
    preflight = {**headers, "access-control-request-method": "POST"}
    answer = http.options("/v1/reports", headers=preflight)
    assert answer.status_code in (403, 405)
    assert "access-control-allow-origin" not in answer.headers


def test_a_page_of_its_own_origin_may_call_it(http, address, pictures):
    body = report(pictures[0])
    assert http.post("/v1/reports", json=body, headers={"origin": address}).status_code == 200


@pytest.fixture(scope="module")
def guarded(serve_writer, serve_settings):
    """A server that needs a token."""
    from dataclasses import replace

    from llava.serve.app import create_app

    settings = replace(serve_settings, token="a-token-of-this-test")
    with running(create_app(serve_writer, settings)) as address, client(address) as own:
        yield own


@pytest.mark.parametrize(
    "given", [None, "Bearer wrong", "Basic a-token-of-this-test", "Bearer", "Bearer \u00e9"]
)
def test_without_its_token_only_the_page_and_the_health_are_there(guarded, given):
    headers = {} if given is None else {"authorization": given.encode("latin-1")}
    for path in ("/v1/models", "/v1/settings", "/docs", "/openapi.json"):
        answer = guarded.get(path, headers=headers)
        check_refusal(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    assert guarded.get("/healthz").status_code == 200
    right = {"authorization": "Bearer a-token-of-this-test"}
    assert guarded.get("/v1/models", headers=right).status_code == 200


# ----------------------------------------------------------------- what is left behind


def raw(address, data):
    """The first line that a server answers to bytes."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(data)
        return connection.recv(4096).split(b"\r\n")[0]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST /v1/reports HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\n"
         b"Content-Length: 99999999999\r\n\r\n{", b"413"),
        (b"POST /v1/reports HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\n"
         b"Content-Length: -1\r\n\r\n{", b"400"),
        (b"GET /healthz HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n\r\n", b"4"),
        (b"GET /healthz HTTP/1.1\r\n\r\n", b"4"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: HOST\r\n\r\n", b"4"),
    ],
)  # fmt: skip
def test_broken_http_is_refused_at_once(address, data, status):
    host = address.removeprefix("http://").encode()
    line = raw(address, data.replace(b"HOST", host))
    assert line.split(b" ")[1].startswith(status), line


def test_bad_requests_leave_no_memory_and_no_file_behind(
    http, pictures, bomb, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bodies = [make(pictures[0], LIMITS) for make in list(BODIES.values())[::2]] + [report(bomb)]
    large = {"images": ("x", bytes(150_000))}

    def all_of_them():
        for body in bodies:
            content = json.dumps(body).encode()
            http.post("/v1/reports", content=content, headers={"content-type": "application/json"})
        http.post("/v1/reports", files=large)

    all_of_them()
    gc.collect()
    before = resident()
    for _ in range(2):
        all_of_them()
    gc.collect()
    assert resident() - before < 20e6
    assert not list(tmp_path.iterdir())
    assert http.get("/healthz").json() == {"status": "ok", "waiting": 0, "decoding": 0}


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
