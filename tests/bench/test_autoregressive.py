"""The twin is causal and exact, decodes as transformers would, and is compared fairly."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from bench.study import autoregressive as ar
from bench.study import autoregressive_train as training
from bench.study import run as runner
from bench.study.arms import Settings
from bench.study.autoregressive_decode import Side, Turns, Written, take_turns, time_ratio
from bench.study.autoregressive_infill import (
    Gapped,
    blank_out,
    causal_infill,
    diffusion_infill,
    score_infill,
    sentence_ends,
)
from bench.study.autoregressive_model import CausalTwin, Rules, causal_body
from bench.study.records import read_records
from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.diffusion.config import SamplingConfig
from llava.model.builder import (
    build_from_backbones,
    load_language_model,
    load_pretrained_model,
)
from llava.writing.templates import Blank, Template
from llava.writing.writer import ReportWriter, Request

WIDTH = 32
REPORT = "Single portable view of the chest. Small left pleural effusion. No pneumothorax."


@pytest.fixture(scope="module")
def twin(tiny_backbones) -> CausalTwin:
    torch.manual_seed(0)
    body = causal_body(load_language_model(tiny_backbones.language))
    return CausalTwin(body, torch.nn.Linear(WIDTH, WIDTH)).eval()


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Two prompts of different length, each with an image of 4 tokens; answers of 3 and 2."""
    ids = torch.tensor(
        [[7, IMAGE_TOKEN_INDEX, 9, 10, 21, 22, 23], [8, IMAGE_TOKEN_INDEX, 31, 32, 0, 0, 0]]
    )
    mask = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]])
    labels = ids.masked_fill((ids < 20), IGNORE_INDEX)
    features = torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(3))
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": labels,
        "image_features": features,
    }


def embed(twin: CausalTwin, batch: dict[str, torch.Tensor]):
    return twin.embed(*(batch[n] for n in ("input_ids", "attention_mask", "image_features")))


@torch.no_grad()
def test_a_token_depends_on_nothing_behind_it(twin, batch):
    before, row = twin.token_nats(**batch)
    changed = batch["input_ids"].clone()
    changed[0, 6] = 40
    labels = batch["labels"].clone()
    labels[0, 6] = 40
    after, _ = twin.token_nats(**batch | {"input_ids": changed, "labels": labels})
    assert row.tolist() == [0, 0, 0, 1, 1]
    assert torch.equal(before[:2], after[:2])
    assert before[2] != after[2]
    image = batch["image_features"] + 1
    assert not torch.allclose(twin.token_nats(**batch | {"image_features": image})[0], before)


@torch.no_grad()
def test_the_nats_are_those_of_transformers_row_by_row(twin, batch):
    nats, row = twin.token_nats(**batch)
    embeds, splice = twin.embed(
        batch["input_ids"], batch["attention_mask"], batch["image_features"]
    )
    for index in range(2):
        length = int(splice.attention_mask[index].sum())
        labels = torch.full((1, length), IGNORE_INDEX)
        own = batch["labels"][index][batch["attention_mask"][index].bool()]
        answer = own[own != IGNORE_INDEX]
        labels[0, -len(answer) :] = answer
        loss = twin.language(inputs_embeds=embeds[index : index + 1, :length], labels=labels).loss
        assert float(loss) == pytest.approx(float(nats[row == index].mean()), rel=1e-5)
    mean = (nats[:3].mean() + nats[3:].mean()) / 2
    assert float(twin(**batch)["loss"]) == pytest.approx(float(mean), rel=1e-6)


@torch.no_grad()
def test_decoding_in_a_batch_gives_what_generate_gives_alone(twin, batch):
    embeds, splice = twin.embed(
        batch["input_ids"], batch["attention_mask"], batch["image_features"]
    )
    ends = torch.tensor([-1])
    free = twin.write(embeds, splice.attention_mask, 12, Rules(ends))
    ends = torch.tensor([free[0][2]])
    written = twin.write(embeds, splice.attention_mask, 12, Rules(ends))
    for index, ids in enumerate(written):
        length = int(splice.attention_mask[index].sum())
        alone = twin.language.generate(
            inputs_embeds=embeds[index : index + 1, :length],
            attention_mask=torch.ones(1, length, dtype=torch.long),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=ends.tolist(),
            pad_token_id=0,
        )
        assert ids == alone[0].tolist()
    assert len(written[0]) <= 3


@torch.no_grad()
def test_forbidden_tokens_are_not_written(twin, batch):
    embeds, splice = twin.embed(
        batch["input_ids"], batch["attention_mask"], batch["image_features"]
    )
    rules = Rules(torch.tensor([-1]))
    first = twin.write(embeds, splice.attention_mask, 1, rules)
    vocabulary = twin.language.config.vocab_size
    forbidden = torch.zeros(2, vocabulary, dtype=torch.bool)
    forbidden[0, first[0][0]] = True
    only = torch.ones(vocabulary, dtype=torch.bool)
    only[5] = False
    again = twin.write(embeds, splice.attention_mask, 3, Rules(rules.ends, forbidden, only))
    assert again[0][0] != first[0][0]
    assert again[1][0] == first[1][0]
    assert again[0][1:] == again[1][1:] == [5, 5]


def test_every_side_writes_every_batch_and_each_begins_once():
    order = []

    def side(name: str) -> Side:
        def write(requests):
            order.append(name)
            return [Written(f"{name}{r}", True, 1, 1) for r in requests]

        return Side(name, write)

    turns = take_turns([side("a"), side("b")], [[0, 1], [2]])
    assert order == ["a", "b", "a", "b", "b", "a"]  # the first two are not counted
    assert [written.text for written in turns["b"].written] == ["b0", "b1", "b2"]
    assert len(turns["a"].seconds) == 2


def test_the_time_ratio_is_the_median_of_the_batches():
    ratio = time_ratio(Turns([], [2.0, 9.0, 1.0]), Turns([], [1.0, 3.0, 1.0]))
    assert (ratio.median, ratio.low, ratio.high) == (2, 1, 3)


def test_blanks_stand_where_findings_are_stated(tiny_tokenizer):
    gap = blank_out(REPORT, tiny_tokenizer)
    assert gap.hidden == ("Small left pleural effusion.",)
    before, blank, after = gap.template.parts
    assert before == "Single portable view of the chest. "
    assert isinstance(blank, Blank)
    tokens = tiny_tokenizer(" Small left pleural effusion.")["input_ids"]
    assert blank == Blank(len(tokens), len(tokens))
    assert after == " No pneumothorax."
    assert blank_out("The lungs are clear. No effusion.", tiny_tokenizer) is None


def test_infill_is_scored_by_blank_and_by_report():
    gap = Gapped(Template(("Chest. ", Blank(3, 3), " End.")), ("Small left pleural effusion.",))
    drawn = [frozenset({"left_effusion"})] * 3
    fills = (" Small left pleural effusion.", " Large left effusion.", " Right effusion.")
    written = [Written(f"Chest.{fill} End.", True, 1, 1, (fill,)) for fill in fills]
    score = score_infill([gap] * 3, drawn, written)
    assert (score.right, score.exact) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert (score.f1, score.fixed_kept, score.blanks) == (pytest.approx(2 / 3), 1.0, 3)
    broken = [Written("Chest. Small left effusion. End!", True, 1, 1, (fills[0],))]
    assert score_infill([gap], drawn[:1], broken).fixed_kept == 0


def test_a_sentence_ends_with_a_full_stop_only(tiny_tokenizer):
    ends = set(sentence_ends(tiny_tokenizer).tolist())
    ids = tiny_tokenizer("The heart is large. No effusion, none.")["input_ids"]
    texts = [tiny_tokenizer.decode([i]) for i in ids]
    assert [i in ends for i in ids] == [text == "." for text in texts]


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_backbones, tiny_dataset) -> Path:
    """A study's folder before any arm is trained."""
    folder = tmp_path_factory.mktemp("study")
    for part, source in zip(("language", "vision"), tiny_backbones, strict=True):
        shutil.copytree(source, folder / "backbones" / part)
    made = {"samples": 7, "epochs": 1, "seed": 0}
    (folder / "backbones" / "language" / "pretraining.json").write_text(json.dumps(made))
    shutil.copytree(tiny_dataset.image_folder, folder / "phantom")
    (folder / "data").mkdir()
    for split in ("train", "val", "test"):
        shutil.copy(tiny_dataset.json_path, folder / "data" / f"{split}_llave_llada.json")
    drawn = [{"id": f"study-{i}", "findings": ["left_effusion"]} for i in range(7)]
    annotation = folder / "phantom" / "annotation_with_clinic_info.json"
    annotation.write_text(json.dumps({"test": drawn}))
    return folder


def test_the_twin_starts_from_the_weights_and_texts_of_the_stand_in(study, tmp_path, monkeypatch):
    from llava.phantom.backbones import language

    fitted = []

    def keep(module, dataset, collate, output, **settings):
        state = {name: value.clone() for name, value in module.state_dict().items()}
        fitted.append((state, dataset[0], settings))

    monkeypatch.setattr(language, "fit", keep)
    for part in ("data", "phantom"):
        (tmp_path / part).symlink_to(study / part)
    settings = Settings(tmp_path)
    entries = training.entries_of(settings, "train")
    language.pretrain_language(entries, tmp_path / "backbones/language", epochs=3, seed=4)
    training.pretrain(settings, seed=4)
    (theirs, sample, budget), (own, own_sample, own_budget) = fitted
    assert budget == own_budget
    assert {k.split(".", 1)[1] for k in theirs} == {k.split(".", 1)[1] for k in own}
    for name, value in own.items():
        assert torch.equal(value, theirs["model." + name.split(".", 1)[1]]), name
    length = len(own_sample["input_ids"])
    assert torch.equal(sample["input_ids"][:length], own_sample["input_ids"])
    training.pretrain(settings, seed=4)
    assert len(fitted) == 2  # it is there


def test_one_seed_from_pretraining_to_records(study, capsys, monkeypatch):
    argv = ["--study", str(study), "--seed", "0", "--device", "cpu"]
    assert ar.main([*argv, "--stage", "pretrain"]) == 0, capsys.readouterr().err
    size = ["--steps", "8", "--batch-size", "4", "--canvas", "32", "--tests", "6"]
    run = [*argv, *size, "--stage", "run"]
    assert ar.main(run) == 2  # base is not finished: the twin waits, trained
    assert "no finished run to compare with" in capsys.readouterr().err
    stored = set((study / "features").rglob("*.safetensors"))
    assert runner.main([*argv, *size, "--arm", "base"]) == 0, capsys.readouterr().err
    assert stored == set((study / "features").rglob("*.safetensors"))  # they share what is there
    monkeypatch.setattr(training, "TwinTrainer", None)  # it must not be trained again
    assert ar.main(run) == 0, capsys.readouterr().err
    records = {(r.arm, r.variant): r for r in read_records(study)}
    assert set(records) >= set(ar.RECORDS)
    assert records["base", "beside_threshold"].metrics["f1"] == records["base", ""].metrics["f1"]
    twin, one = records["autoregressive", ""], records["base", "beside_one"]
    assert twin.n == one.n == 6
    assert twin.metrics["tokens"] == twin.metrics["passes"] + 1
    assert twin.metrics["time_ratio"] == 1
    assert one.metrics["passes"] == one.metrics["tokens"] or one.metrics["truncated"] < 1
    assert 0 < twin.metrics["report_nats"] < one.metrics["report_nats"] * 10
    for arm in ("autoregressive", "base"):
        infill = records[arm, "infill"]
        assert infill.metrics["infill_fixed_kept"] == 1
        assert 0 < infill.n < 6
    assert twin.seconds_per_step > 0
    assert one.seconds_per_step == records["base", ""].seconds_per_step
    before = {path: path.stat().st_mtime_ns for path in (study / "records").iterdir()}
    assert ar.main(run) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (study / "records").iterdir()}


def test_both_sides_fill_each_blank_and_touch_nothing_else(tiny_checkpoint, tiny_dataset, twin):
    loaded = load_pretrained_model(tiny_checkpoint)
    writer = ReportWriter(loaded)
    own = CausalTwin(twin.language, loaded.model.mm_projector).eval()
    text = (
        "Small left pleural effusion. The lungs are clear. Small right pneumothorax. Large nodule."
    )
    gaps = [blank_out(text, loaded.tokenizer), blank_out(REPORT, loaded.tokenizer)]
    assert [len(gap.hidden) for gap in gaps] == [3, 1]
    image = tiny_dataset.image_folder / "p10" / "image0.png"
    prompt = "<image>\nWhat is seen?"
    requests = [Request((image,), prompt, template=gap.template) for gap in gaps]
    config = SamplingConfig(gen_length=96)
    for side in (diffusion_infill("d", writer, config), causal_infill("a", own, writer, config)):
        together = side.write(requests)
        assert together == [side.write([request])[0] for request in requests]
        for gap, report in zip(gaps, together, strict=True):
            fills = iter(report.fills)
            parts = [next(fills) if isinstance(p, Blank) else p for p in gap.template.parts]
            joined = "".join(
                part.removesuffix(" ") if part in gap.template.parts else part for part in parts
            )
            assert report.text == joined
            assert gap.keeps_fixed_text(report.text)


def test_a_run_of_another_budget_is_not_taken_for_this_one(study, tmp_path):
    folder = tmp_path / "runs" / "autoregressive" / "seed0"
    folder.mkdir(parents=True)
    made = {"steps": 8, "batch_size": 4, "bf16": False}
    (folder / "seconds_per_step.json").write_text(json.dumps(made))
    with pytest.raises(ValueError, match="trained with batch_size=4, not 8"):
        training.train(Settings(tmp_path, steps=8, batch_size=8), 0)


def test_training_sees_the_samples_of_the_arms_up_to_the_end_of_the_report(study):
    settings = Settings(study, steps=8, batch_size=4)
    loaded = build_from_backbones(study / "backbones/language", study / "backbones/vision")
    samples = training.reports(settings, loaded, training.entries_of(settings, "train"))
    cut = training.UpToEnd(samples)
    for index in range(len(cut)):
        whole, sample = samples[index], cut[index]
        labels = sample["labels"][sample["labels"] != IGNORE_INDEX]
        assert loaded.tokenizer.decode(labels).endswith("<|im_end|>")
        assert torch.equal(whole["input_ids"][: len(sample["input_ids"])], sample["input_ids"])
    body = causal_body(load_language_model(study / "backbones/language"))
    trainer = training.TwinTrainer(
        CausalTwin(body, loaded.model.mm_projector), cut, settings, seed=5
    )
    from llava.train.batches import GlobalBatches

    first = next(iter(trainer.get_train_dataloader()))
    order = GlobalBatches(len(cut), 4, 5).order(0)[:4]
    ids = [cut[i]["input_ids"] for i in order]
    for row, own in zip(first["input_ids"], ids, strict=True):
        assert torch.equal(row[: len(own)], own)


def test_a_bound_on_the_nats_is_no_smaller_than_the_nats_of_the_canvas(tiny_checkpoint, study):
    from bench.study.autoregressive_decode import diffusion_nats
    from llava.data.samples.dataset import AnswerFill

    loaded = load_pretrained_model(tiny_checkpoint)
    settings = Settings(study)
    entries = training.entries_of(settings, "val")
    small, large = (
        training.reports(settings, loaded, entries, AnswerFill("canvas", canvas))
        for canvas in (32, 64)
    )
    # An untrained model pays about log V for each position of the canvas, fill included.
    assert diffusion_nats(loaded.model, large, 0) > diffusion_nats(loaded.model, small, 0) * 1.2
