"""The engine: a report is the same token for token alone, batched, or joined late (fp32)."""

import queue
import time

import pytest
import torch

from llava.constants import ASSISTANT_PROMPT
from llava.diffusion.config import SamplingConfig
from llava.images.loading import open_image
from llava.serve.engine import Engine, Unavailable
from llava.serve.jobs import Failed, Finished, Job, Passed
from llava.writing.writer import Request


class Asked:
    """A job in an engine, and its events."""

    def __init__(self, engine, request, sampling, **options):
        self.events = queue.Queue()
        prepared = engine.writer.prepare(request, sampling)
        engine.reserve()
        self.job = Job(prepared, sampling, request.seed, self.events.put, **options)
        engine.submit(self.job)

    def result(self):
        """The last event, and the passes before it."""
        passes = []
        while isinstance(event := self.events.get(timeout=60), Passed):
            passes.append(event)
        if isinstance(event, Failed):
            raise event.error
        return event, passes


@pytest.fixture
def engine(serve_writer):
    engine = Engine(serve_writer, queue=40, rows=12)
    engine.start()
    yield engine
    assert engine.drain(60)
    assert (engine.waiting, engine.decoding) == (0, 0)


def requests(picture_bytes, count, template=None):
    """Prompts of different lengths about different images, each with its own seed."""
    found = []
    for index in range(count):
        image = open_image(picture_bytes[index % len(picture_bytes)], "image").image
        prompt = f"{ASSISTANT_PROMPT} Indication: {'cough ' * (index % 5)}"
        found.append(Request((image,), prompt, seed=index, template=template))
    return found


def ask_all(engine, asked, sampling, **options):
    """Some at once, then one after the other while the first are decoded."""
    jobs = []
    for index, request in enumerate(asked):
        if index > len(asked) // 2:
            time.sleep(0.01)
        jobs.append(Asked(engine, request, sampling, **options))
    return jobs


SETTINGS = [
    {"gen_length": 16},
    {"gen_length": 16, "temperature": 0.9, "remasking": "random", "steps": 8},
    {"gen_length": 16, "threshold": 0.05, "revoke": 0.02},
    {"gen_length": 16, "cfg_scale": 0.5, "steps": 8},
    {"gen_length": 16, "cache": "block_dual"},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_reports_are_those_of_each_request_alone(engine, picture_bytes, settings):
    sampling = SamplingConfig(**settings)
    asked = requests(picture_bytes, 6)
    found = [job.result()[0].report for job in ask_all(engine, asked, sampling)]
    for request, report in zip(asked, found, strict=True):
        (alone,) = engine.writer.write([request], sampling)
        assert report.token_ids == alone.token_ids
        assert report.decided_at == alone.decided_at
        assert report.text == alone.text
        assert report.confidence == pytest.approx(alone.confidence, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("drafting", ["joint", "alternate"])
def test_left_to_right_reports_are_those_of_each_request_alone(
    block_writer, picture_bytes, drafting
):
    engine = Engine(block_writer, queue=40, rows=12)
    engine.start()
    sampling = SamplingConfig(gen_length=16, drafting=drafting, temperature=0.5)
    asked = requests(picture_bytes, 6)
    jobs = ask_all(engine, asked, sampling, streams=True)
    for request, job in zip(asked, jobs, strict=True):
        (alone,) = block_writer.write([request], sampling)
        event, passes = job.result()
        assert event.report.token_ids == alone.token_ids
        assert len(passes) == alone.nfe + 1
    assert engine.drain(60)


@pytest.mark.parametrize("template", ["The heart is [2-4]. [3] No effusion.", "[2] lungs [3]"])
def test_templates_are_filled_as_alone_and_every_blank_has_other_fills(
    engine, picture_bytes, template
):
    sampling = SamplingConfig(gen_length=40)
    asked = requests(picture_bytes, 3, template)
    jobs = ask_all(engine, asked, sampling, alternatives=2)
    for request, job in zip(asked, jobs, strict=True):
        (alone,) = engine.writer.write([request], sampling)
        finished = job.result()[0]
        assert finished.report.text == alone.text
        assert len(finished.fills) == 2
        for best, *others in finished.fills:
            assert len(others) == 2
            assert len({fill.text for fill in (best, *others)}) == 3
            assert others[0].log_probability >= others[1].log_probability
            assert best.text.strip() in alone.text


def test_different_settings_and_templates_run_next_to_one_another(engine, picture_bytes):
    plain, filled = SamplingConfig(gen_length=16), SamplingConfig(gen_length=24)
    warm = SamplingConfig(gen_length=16, temperature=1.0)
    asked = requests(picture_bytes, 6)
    templates = requests(picture_bytes, 2, "No [3].")
    pairs = [(request, (plain, warm)[index % 2]) for index, request in enumerate(asked)]
    pairs += [(request, filled) for request in templates]
    jobs = [Asked(engine, request, sampling) for request, sampling in pairs]
    for (request, sampling), job in zip(pairs, jobs, strict=True):
        (alone,) = engine.writer.write([request], sampling)
        assert job.result()[0].report.token_ids == alone.token_ids


@pytest.mark.parametrize("template", [None, "The heart is [2-3]. [2]"])
def test_the_last_pass_that_is_told_is_the_report(engine, picture_bytes, template):
    sampling = SamplingConfig(gen_length=24, steps=24)
    job = Asked(engine, requests(picture_bytes, 1, template)[0], sampling, streams=True)
    finished, passes = job.result()
    assert [event.nfe for event in passes[:-1]] == list(range(1, len(passes)))
    last = passes[-1]
    emitted = [i for i, at in zip(last.ids, last.decided_at, strict=True) if at >= 0]
    assert emitted == finished.report.token_ids


def test_a_job_that_is_given_up_frees_its_rows_and_tells_nothing(serve_writer, picture_bytes):
    engine = Engine(serve_writer, queue=40, rows=2)
    first, second, third = requests(picture_bytes, 3)
    long, short = SamplingConfig(gen_length=512), SamplingConfig(gen_length=8)
    gone = [Asked(engine, request, long, streams=True) for request in (first, second)]
    waits = Asked(engine, third, short)
    engine.start()
    for job in gone:
        assert isinstance(job.events.get(timeout=60), Passed)
    assert engine.decoding == 2
    for job in gone:
        job.job.cancelled = True
    assert isinstance(waits.result()[0], Finished)
    assert engine.drain(60)
    assert engine.decoding == 0
    for job in gone:
        assert all(isinstance(event, Passed) for event in job.events.queue)


def test_what_goes_wrong_is_told_to_its_jobs_and_the_engine_goes_on(
    engine, picture_bytes, monkeypatch
):
    sampling = SamplingConfig(gen_length=8)
    one, two = requests(picture_bytes, 2)
    with monkeypatch.context() as patch:
        patch.setattr(engine.writer, "embed", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Asked(engine, one, sampling).result()
    assert isinstance(Asked(engine, two, sampling).result()[0], Finished)


def test_the_queue_is_bounded_and_a_draining_engine_finishes_what_it_took(
    serve_writer, picture_bytes
):
    engine = Engine(serve_writer, queue=2, rows=4)
    sampling = SamplingConfig(gen_length=8)
    asked = requests(picture_bytes, 3)
    jobs = [Asked(engine, request, sampling) for request in asked[:2]]
    with pytest.raises(Unavailable, match="2 requests are waiting"):
        engine.reserve()
    engine.draining = True
    engine.start()
    assert engine.drain(60)
    assert all(isinstance(job.result()[0], Finished) for job in jobs)
    with pytest.raises(Unavailable, match="stopping"):
        engine.reserve()


def test_the_tower_sees_each_image_once_and_reports_stay_the_same(engine, picture_bytes):
    tower, seen = engine.writer.model.vision_tower, []
    hook = tower.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    sampling = SamplingConfig(gen_length=24)
    (draft,), (filled,) = (requests(picture_bytes, 1, each) for each in (None, "The heart is [3]."))
    first, second, fill = (
        Asked(engine, request, sampling).result()[0].report for request in (draft, draft, filled)
    )
    assert seen == [1]
    hook.remove()
    assert first == second
    assert first.token_ids == engine.writer.write([draft], sampling)[0].token_ids
    assert fill.token_ids == engine.writer.write([filled], sampling)[0].token_ids


@torch.no_grad()
def test_views_that_are_kept_are_bounded(serve_writer, picture_bytes):
    from llava.serve.views import Views

    sampling = SamplingConfig(gen_length=16)
    prepared = [serve_writer.prepare(one, sampling) for one in requests(picture_bytes, 3)]
    whole = serve_writer.embed(prepared)[0]
    one_view = serve_writer.model.vision_tower(prepared[0].pixels)[0].nbytes
    views = Views(serve_writer, most=2 * one_view)
    torch.testing.assert_close(views.embed(prepared)[0], whole)
    torch.testing.assert_close(views.embed(prepared)[0], whole)
    assert sum(one.nbytes for one in views._kept.values()) <= 2 * one_view
