"""The API over a real server: what it answers, in JSON, as a form, and as a stream."""

import base64
import io
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from reading import alone, events
from running import client, running

from llava.data.prompt import human_turn
from llava.diffusion.config import SamplingConfig
from llava.images.loading import open_image
from llava.serve.lane import Lane
from llava.writing.writer import Request


def test_a_report_has_text_tokens_log_probabilities_and_findings(
    http, serve_writer, picture_bytes, pictures
):
    body = {
        "images": [{"data": pictures[0], "role": "frontal"}],
        "context": {"indication": "Cough"},
    }
    answer = http.post("/v1/reports", json=body).json()
    report = alone(serve_writer, picture_bytes[0], human_turn({"indication": "Cough"}))
    assert answer["text"] == report.text
    assert answer["passes"] == report.nfe
    assert answer["model"] == "tiny"
    assert set(answer["findings"]) == {"present", "absent", "uncertain"}
    shares = np.exp([token["log_probability"] for token in answer["tokens"]])
    assert shares == pytest.approx(report.confidence, rel=1e-3)
    assert [token["pass"] for token in answer["tokens"]] == report.decided_at
    assert "".join(token["text"] for token in answer["tokens"]).strip().startswith(report.text)


def test_roles_contexts_and_seeds_make_the_prompt_that_training_makes(
    http, serve_writer, picture_bytes, pictures
):
    body = {
        "images": [
            {"data": f"data:image/png;base64,{pictures[1]}", "role": "frontal"},
            {"data": pictures[2], "role": "prior lateral"},
        ],
        "context": {"history": "Smoker", "prior_report": "No change."},
        "sampling": {"temperature": 1.0, "gen_length": 24},
        "seed": 7,
    }
    images = tuple(open_image(data, "image").image for data in picture_bytes[1:3])
    prompt = human_turn({"history": "Smoker"}, ["Frontal", "Prior lateral"], "No change.")
    sampling = SamplingConfig(gen_length=24, temperature=1.0)
    (report,) = serve_writer.write([Request(images, prompt, 7)], sampling)
    assert http.post("/v1/reports", json=body).json()["text"] == report.text


def test_a_form_gives_what_json_gives(http, picture_bytes, pictures):
    body = {"context": {"indication": "Cough"}, "roles": ["frontal", "lateral"]}
    files = [("images", (f"../../{i}.png", data)) for i, data in enumerate(picture_bytes[:2])]
    form = http.post("/v1/reports", data={"request": json.dumps(body)}, files=files)
    images = [
        {"data": data, "role": role}
        for data, role in zip(pictures, body.pop("roles"), strict=False)
    ]
    assert (
        form.json()["text"]
        == http.post("/v1/reports", json={**body, "images": images}).json()["text"]
    )


@pytest.mark.parametrize(
    ("template", "sampling"),
    [
        (None, {}),
        (None, {"threshold": 0.05, "revoke": 0.03}),
        (None, {"temperature": 1.0, "steps": 4, "block_length": 8}),
        ("The heart [2]. [1-3]", {"gen_length": 40}),
    ],
)
def test_a_stream_ends_with_the_report_and_its_settled_text_only_grows(
    http, pictures, template, sampling
):
    body = {"images": [{"data": pictures[0]}], "template": template, "sampling": sampling}
    whole = http.post("/v1/reports", json=body).json()
    answer = http.post("/v1/reports", json={**body, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *passes, (name, last) = events(answer)
    assert name == "report"
    for once in ("id", "seconds"):
        last.pop(once), whole.pop(once)
    assert last == whole
    assert {name for name, _ in passes} == {"pass"}
    texts = [data["text"] for _, data in passes]
    assert texts[-1] == last["text"].strip()
    if template is None:
        assert all(after.startswith(before) for before, after in pairwise(texts))
        assert [data["pass"] for _, data in passes[:-1]] == list(range(1, len(passes)))
    decided = [sum(token["text"] is not None for token in data["tokens"]) for _, data in passes]
    assert decided[-1] == len(passes[-1][1]["tokens"]) == len(last["tokens"])


def test_a_template_keeps_its_text_and_lists_the_next_best_fills(http, pictures):
    template = "The heart is [1-3]. [2] No effusion."
    body = {"images": [{"data": pictures[0]}], "template": template}
    answer = http.post("/v1/reports", json={**body, "sampling": {"gen_length": 48}}).json()
    one, two = answer["gaps"]
    assert answer["text"] == f"The heart is {one['text']}. {two['text']} No effusion."
    for gap in (one, two):
        values = [other["log_probability"] for other in gap["alternatives"]]
        assert len(values) == 2
        assert values == sorted(values, reverse=True)
        assert gap["text"] not in [other["text"] for other in gap["alternatives"]]
    assert [token["given"] for token in answer["tokens"]].count(True) > 3


def test_twenty_clients_at_once_get_what_each_would_get_alone(
    address, serve_writer, picture_bytes, pictures
):
    def body(index):
        return {
            "images": [{"data": pictures[index % 7]}],
            "context": {"indication": "cough " * (index % 4)},
            "seed": index,
            "sampling": {"temperature": 0.7 if index % 2 else 0.0},
        }

    def ask(index):
        with client(address) as own:
            return own.post("/v1/reports", json=body(index)).json()["text"]

    with ThreadPoolExecutor(20) as clients:
        together = list(clients.map(ask, range(24)))
    for index in range(0, 24, 3):
        sampling = SamplingConfig(gen_length=16, temperature=0.7 if index % 2 else 0.0)
        prompt = human_turn({"indication": "cough " * (index % 4)})
        own = alone(serve_writer, picture_bytes[index % 7], prompt, sampling, seed=index)
        assert together[index] == own.text


def test_a_client_that_goes_away_frees_its_row(address, http, pictures, monkeypatch):
    """Its 128 passes, slowed down, would take longer than the client stays."""
    ticks, tick = [], Lane.tick

    def slow(lane):
        time.sleep(0.02)
        ticks.append(len(lane))
        tick(lane)

    monkeypatch.setattr(Lane, "tick", slow)
    body = {"images": [{"data": pictures[0]}], "sampling": {"gen_length": 128}}

    def wait_until_idle():
        deadline = time.monotonic() + 30
        while http.get("/healthz").json()["decoding"] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert 0 < len(ticks) < 128
        assert ticks[0] == 1
        ticks.clear()

    streamed = {**body, "stream": True}
    with client(address) as own, own.stream("POST", "/v1/reports", json=streamed) as answer:
        next(answer.iter_lines())
    wait_until_idle()
    with pytest.raises(Exception, match="timed out"), client(address) as own:
        own.post("/v1/reports", json=body, timeout=0.3)
    wait_until_idle()


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def test_an_image_is_shown_as_the_model_sees_it(http):
    array = np.arange(600, dtype=np.uint16).reshape(20, 30)
    answer = http.post("/v1/images", files={"file": ("x", png(array))}).json()
    assert (answer["width"], answer["height"], answer["kind"]) == (30, 20, "PNG")
    assert answer["window"] is None
    shown = base64.b64decode(answer["png"].partition(",")[2])
    assert Image.open(io.BytesIO(shown)).mode == "RGB"


def test_a_dicom_is_shown_with_its_window_or_another(http, dicom_bytes):
    own = http.post("/v1/images", json={"data": base64.b64encode(dicom_bytes).decode()}).json()
    assert own["kind"] == "DICOM"
    assert own["window"] == {"center": 50.0, "width": 20.0}
    query = {"window_center": 10, "window_width": 5}
    other = http.post("/v1/images", params=query, files={"file": ("x", dicom_bytes)}).json()
    assert other["window"] == {"center": 10.0, "width": 5.0}
    assert other["png"] != own["png"]


@pytest.fixture
def dicom_bytes(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.3", "1.2.3.4"
    data = FileDataset("x", {}, file_meta=meta, preamble=b"\0" * 128)
    data.Rows, data.Columns, data.BitsAllocated, data.BitsStored, data.HighBit = 10, 10, 8, 8, 7
    data.PixelRepresentation, data.SamplesPerPixel = 0, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.WindowCenter, data.WindowWidth = 50, 20
    data.PixelData = bytes(range(100))
    file = io.BytesIO()
    pydicom.dcmwrite(file, data)
    return file.getvalue()


def test_a_draft_is_audited_against_the_report(http):
    body = {
        "text": "No pleural effusion. There is a rib fracture. Comfortable patient.",
        "reference": "Small left pleural effusion. The heart is enlarged.",
    }
    answer = http.post("/v1/audit", json=body).json()
    assert (answer["missing"], answer["denied"]) == (["Cardiomegaly"], ["Pleural Effusion"])
    assert answer["invented"] == ["Fracture"]
    assert [one["mark"] for one in answer["sentences"]] == ["denied", "invented", "none"]


# ----------------------------------------------------------------- the rest


def test_what_the_server_is_can_be_asked(http):
    assert http.get("/healthz").json()["status"] == "ok"
    assert http.get("/v1/models").json()["data"][0]["id"] == "tiny"
    settings = http.get("/v1/settings").json()
    assert settings["defaults"]["gen_length"] == 16
    assert settings["limits"]["images"] == 3
    assert "prior_report" in settings["context_fields"]
    assert settings["log"] is False
    assert settings["decoders"] == ["auto", "canvas"]  # of mode prefix
    paths = http.get("/openapi.json").json()["paths"]
    assert {"/v1/reports", "/v1/chat/completions", "/v1/audit"} <= set(paths)
    docs = http.get("/docs")
    assert "/v1/reports" in docs.text
    assert "<script" not in docs.text
    assert "https://" not in docs.text


def test_a_checkpoint_of_mode_block_offers_its_decoders(block_writer, serve_settings, pictures):
    from llava.serve.app import create_app

    guard = create_app(block_writer, serve_settings)
    with running(guard) as address, client(address) as own:
        decoders = own.get("/v1/settings").json()["decoders"]
        assert decoders == ["auto", "canvas", "blocks", "causal", "speculative"]
        body = {"images": [{"data": pictures[0]}], "sampling": {"gen_length": 8}}
        for decoder in decoders:
            body["sampling"]["decoder"] = decoder
            assert own.post("/v1/reports", json=body).status_code == 200


def test_named_templates_can_be_filled(http, pictures):
    for template in http.get("/v1/settings").json()["templates"]:
        body = {"images": [{"data": pictures[0]}], "template": template["text"], "alternatives": 0}
        answer = http.post("/v1/reports", json={**body, "sampling": {"gen_length": 128}})
        assert answer.status_code == 200, answer.text


def test_no_text_of_a_request_is_logged(http, pictures, caplog):
    caplog.set_level(logging.DEBUG)
    body = {"images": [{"data": pictures[0]}], "context": {"indication": "Secretword"}}
    assert http.post("/v1/reports", json=body).status_code == 200
    assert http.post("/v1/reports", json={**body, "template": "Secretword"}).status_code == 422
    http.get("/Secretword", params={"q": "Secretword"})
    own = [record for record in caplog.records if not record.name.startswith("http")]
    assert any("/v1/reports 200" in record.getMessage() for record in own)
    assert not any("Secretword" in record.getMessage() for record in own)


def test_an_edit_is_appended_to_the_log_as_a_row(serve_writer, serve_settings, tmp_path):
    import csv
    from dataclasses import replace

    from llava.serve.app import create_app

    entry = {
        "sample_id": "s1",
        "images": ["a.png", "b.png"],
        "candidate": "Clear.\nNo effusion, no edema.",
        "final": "=1+1",
        "seconds": 12.5,
        "edits": [{"kind": "fill"}],
    }
    limits = replace(serve_settings.limits, log=1000)
    settings = replace(serve_settings, log_dir=tmp_path / "log", limits=limits)
    guard = create_app(serve_writer, settings)
    with running(guard) as address, client(address) as own:
        for _ in range(2):
            assert own.post("/v1/log", json=entry).status_code == 200
        long = {**entry, "edits": ["x" * 1000]}
        assert own.post("/v1/log", json=long).status_code == 413
    with (tmp_path / "log" / "drafts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert rows[0]["candidate"] == entry["candidate"]
    assert rows[0]["final"] == "'=1+1"
    assert (rows[1]["images"], rows[1]["seconds"]) == ("a.png b.png", "12.5")


def test_a_draining_server_finishes_what_runs_and_refuses_the_rest(
    serve_writer, serve_settings, pictures
):
    from llava.serve.app import create_app

    body = {"images": [{"data": pictures[0]}], "sampling": {"gen_length": 128}}
    guard, found = create_app(serve_writer, serve_settings), []
    with running(guard) as address, client(address) as own:
        ask = threading.Thread(
            target=lambda: found.append(client(address).post("/v1/reports", json=body))
        )
        ask.start()
        while not guard.engine.decoding:
            time.sleep(0.005)
        guard.engine.draining = True
        refused = own.post("/v1/reports", json=body)
        assert own.get("/healthz").json()["status"] == "draining"
    ask.join(30)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert found[0].status_code == 200
