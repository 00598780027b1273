"""Requests in OpenAI's form: answers, streams, models and errors as OpenAI's clients read them."""

import pytest
from reading import alone, events

from llava.constants import QUESTION


def chat(picture, **changes):
    content = [
        {"type": "text", "text": QUESTION},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
    ]
    return {"model": "tiny", "messages": [{"role": "user", "content": content}], **changes}


def test_a_chat_completion_is_the_report(http, serve_writer, picture_bytes, pictures):
    body = chat(pictures[3], n=1, top_p=1, user="me", logprobs=True)
    answer = http.post("/v1/chat/completions", json=body).json()
    report = alone(serve_writer, picture_bytes[3])
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": report.text}
    assert choice["finish_reason"] == ("stop" if report.ended else "length")
    assert answer["usage"]["completion_tokens"] == len(report.token_ids)
    assert len(choice["logprobs"]["content"]) == len(report.token_ids)


@pytest.mark.parametrize("changes", [{}, {"temperature": 1, "seed": 3}, {"stop": ["a", "e "]}])
def test_the_deltas_of_a_streamed_completion_are_its_text(http, pictures, changes):
    whole = http.post("/v1/chat/completions", json=chat(pictures[4], **changes)).json()
    streamed = http.post("/v1/chat/completions", json=chat(pictures[4], stream=True, **changes))
    *chunks, (_, done) = events(streamed)
    assert done == "[DONE]"
    choices = [data["choices"][0] for _, data in chunks]
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    assert text == whole["choices"][0]["message"]["content"]
    assert choices[-1]["finish_reason"] == whole["choices"][0]["finish_reason"]


def test_max_tokens_makes_the_canvas_shorter_and_never_longer(http, pictures):
    for limit, tokens in ((4, 4), (1024, 16)):
        answer = http.post("/v1/chat/completions", json=chat(pictures[0], max_tokens=limit)).json()
        assert answer["usage"]["completion_tokens"] <= tokens


def test_a_stream_ends_with_its_usage_if_that_is_asked_for(http, pictures):
    whole = http.post("/v1/chat/completions", json=chat(pictures[0])).json()
    asked = chat(pictures[0], stream=True, stream_options={"include_usage": True})
    *chunks, (_, last), _ = events(http.post("/v1/chat/completions", json=asked))
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert not any("usage" in data for _, data in chunks)


def test_the_model_is_found_by_its_name_only(http):
    listed = http.get("/v1/models").json()["data"]
    assert [http.get("/v1/models/tiny").json()] == listed
    answer = http.get("/v1/models/some/other")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("changes", "status", "code", "param"),
    [
        ({"model": "other"}, 404, "model_not_found", "model"),
        ({"n": 2}, 422, "invalid_value", "n"),
        ({"messages": []}, 422, "invalid_value", "messages"),
        ({"stream_options": 1}, 422, "invalid_value", "stream_options"),
    ],
)
def test_errors_have_openais_form(http, pictures, changes, status, code, param):
    answer = http.post("/v1/chat/completions", json=chat(pictures[0], **changes))
    error = answer.json()["error"]
    assert answer.status_code == status
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert error["param"] == param
    assert error["message"]
