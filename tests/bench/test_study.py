"""The study: its arms parse, its records survive, its intervals and tables are right."""

import importlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.study import arms, tables
from bench.study.arms import ARMS, CHECKS, Settings, chosen, find, jobs, train_options
from bench.study.decoding import merge, read_decoding
from bench.study.intervals import mean_interval, paired_difference
from bench.study.pool import Job, plan, run_all
from bench.study.records import Record, exists, read_record, read_records
from bench.study.report import fill, write_report
from bench.study.restore import main as restored
from bench.study.run import CLOCK_FILE, EQUAL_TIME, equal_time_step, evaluations, sampling_of
from bench.study.scoring import omitted_normal, score_texts
from llava.train.options.fields import mask_draws
from llava.train.options.parsing import parse_arguments

ROOT = Path(__file__).resolve().parents[2]
METRICS = ("f1", "rouge_l", "truncated", "repetition", "length_ratio", "length_error")
METRICS += ("omitted_normal", "passes", "seconds_per_report", "nelbo")


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(tmp_path / "study", steps=80)


def record(arm: str, seed: int, value: float, variant: str = "", step: int = 80) -> Record:
    curve = [] if variant else [(10 * k, 2 - value - k / 10) for k in range(1, CHECKS + 1)]
    return Record(arm, seed, step, variant, 5, 0.1, dict.fromkeys(METRICS, value), curve)


def write_study(folder: Path) -> None:
    """Records of every arm under three seeds; `full` is better than `base` under all of them."""
    for number, arm in enumerate(ARMS):
        for seed in range(3):
            value = 0.5 + 0.1 * seed + (0.05 + 0.001 * seed if arm.name == "full" else 0)
            record(arm.name, seed, value).write(folder)
            for variant in arm.variants:
                record(arm.name, seed, value - 0.01 * number, variant).write(folder)
            if "objective" in arm.groups:
                record(arm.name, seed, value - 0.1, EQUAL_TIME, 40).write(folder)
            record("autoregressive", seed, 0.4).write(folder)
            record("base", seed, 0.3, "infill").write(folder)
    (folder / "phantom").mkdir()
    (folder / "phantom/phantom.json").write_text('{"train": 9, "difficulty": "hard"}')


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_every_arm_is_a_command_line_of_the_trainer(arm, settings):
    words = train_options(arm, 1, settings)
    parsed = parse_arguments(words)
    for name, value in arm.options.items():
        found = next(
            getattr(group, name)
            for group in (parsed.model, parsed.data, parsed.run)
            if hasattr(group, name)
        )
        assert str(found).lower() in (value, f"{value}.0")
    assert parsed.training.max_steps == 80 * arm.stretch
    assert parsed.training.lr_scheduler_type == "constant_with_warmup"
    assert parsed.data.feature_cache


def test_the_objectives_differ_in_masks_and_copies_as_their_names_say(settings):
    copies = {}
    for name in ("single_elbo", "independent_elbo", "complementary_elbo", "pairs2_elbo"):
        model = parse_arguments(train_options(find(name), 0, settings)).model
        copies[name] = mask_draws(model) * (2 if model.complementary else 1)
    assert list(copies.values()) == [1, 2, 2, 4]


def test_jobs_go_seed_by_seed_and_an_unknown_arm_is_named():
    assert list(jobs(chosen("base, full"), [3, 4])) == [
        ("base", 3),
        ("full", 3),
        ("base", 4),
        ("full", 4),
    ]
    assert chosen("") == list(ARMS)
    with pytest.raises(ValueError, match="arm 'bse' is unknown; choose from base"):
        chosen("bse")


def test_a_list_of_arms_names_its_starts_and_may_hold_the_twin(settings, capsys):
    arms.main(["--arms", "block_growing, autoregressive, block_from_hybrid", "--starts"])
    assert capsys.readouterr().out.split() == ["causal", "hybrid"]
    arms.main(["--arms", "base,block", "--starts"])
    assert not capsys.readouterr().out.strip()
    words = train_options(find("block_from_hybrid"), 0, settings)
    assert words[words.index("--model_name_or_path") + 1].endswith("backbones/hybrid")
    planned = [job.name for job in plan(settings, "block,autoregressive", [0, 1])]
    assert planned == [
        *("base_seed0", "base_seed1", "block_seed0", "autoregressive_seed0", "infill_seed0"),
        *("block_seed1", "autoregressive_seed1", "infill_seed1"),
    ]


def test_every_job_stands_behind_what_it_needs(settings):
    jobs_of = list(plan(settings, "", [0, 1]))
    names = [job.name for job in jobs_of]
    assert names[:2] == ["base_seed0", "base_seed1"]
    assert (
        len(set(names)) == len(names) == 2 * (len(ARMS) + 3) + 1
    )  # twin, infill, curves; gradient
    for number, job in enumerate(jobs_of):
        assert set(job.after) <= set(names[:number])
    assert [j.name for j in plan(settings, "single_elbo", [1])] == [
        "base_seed1",
        "single_elbo_seed1",
    ]
    *_, last = plan(settings, "base,block", [1])
    assert (last.name, last.after) == ("infill_seed1", ("base_seed1", "block_seed1"))


def test_a_failed_job_stops_only_what_needs_it(tmp_path, capsys):
    bad = Job("bad", "json.tool", ("no such file",))
    good = Job("good", "json.tool", ("--help",))
    after = Job("after", "json.tool", ("--help",), ("bad",))
    assert run_all([bad, after, good], tmp_path, 1) == ["bad", "after"]
    assert "No such file" in (tmp_path / "bad.log").read_text()
    said = capsys.readouterr().out
    assert "good: done" in said
    assert "after: not run, as bad failed" in said


def test_equal_time_is_the_checkpoint_nearest_to_the_time_of_base(settings):
    for arm, seconds in (("base", 0.2), ("single_elbo", 0.13), ("pairs4_elbo", 0.8)):
        folder = settings.run_folder(arm, 0)
        folder.mkdir(parents=True)
        (folder / CLOCK_FILE).write_text(json.dumps({"seconds_per_step": seconds}))
    found = [equal_time_step(find(n), 0, settings) for n in ("base", "single_elbo", "pairs4_elbo")]
    assert found == [80, 120, 20]
    block = settings.run_folder("block", 0)
    block.mkdir(parents=True)
    (block / CLOCK_FILE).write_text(json.dumps({"seconds_per_step": 0.4}))
    timed = {variant: step for step, variant in evaluations(find("block"), 0, settings)}
    assert timed["causal"] == 80
    assert timed["equal_time_causal"] == timed["equal_time_threshold_0.9"] == 40
    assert sampling_of("equal_time_speculative", settings) == sampling_of("speculative", settings)
    assert (120, EQUAL_TIME) in evaluations(find("single_elbo"), 0, settings)
    with pytest.raises(ValueError, match="seed1 holds no finished run"):
        equal_time_step(find("base"), 1, settings)


def test_a_record_is_read_as_it_was_written(tmp_path):
    written = record("base", 2, 0.5)
    path = written.write(tmp_path)
    assert exists(tmp_path, "base", 2, 80)
    assert not exists(tmp_path, "base", 2, 80, "no_context")
    assert replace(read_record(path), curve=written.curve) == written
    assert read_record(path).curve == [list(point) for point in written.curve]
    path.write_text('{"arm": "base"}')
    with pytest.raises(ValueError, match=r"step80\.json is not a record of a study"):
        read_records(tmp_path)


def test_an_interval_over_three_seeds_is_students():
    interval = mean_interval([1.0, 2.0, 3.0])
    assert (interval.mean, interval.n) == (2.0, 3)
    assert interval.half == pytest.approx(4.303 / 3**0.5)
    assert mean_interval([1.0]).half is None


def test_a_difference_is_paired_by_seed():
    paired = paired_difference({0: 1.1, 1: 2.1, 2: 3.1, 7: 9.0}, {0: 1.0, 1: 2.0, 2: 3.0})
    assert paired.mean == pytest.approx(0.1)
    assert paired.half == pytest.approx(0, abs=1e-9)
    assert paired.n == 3
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_the_report_fills_every_marker_and_leaves_the_conclusions_alone(tmp_path):
    write_study(tmp_path / "study")
    write_report(tmp_path / "study", tmp_path / "out")
    page = (tmp_path / "out/docs/results.md").read_text()
    original = (ROOT / "docs/results.md").read_text()
    outside = re.compile(r"(<!-- study:(\w+) -->).*?(<!-- /study:\2 -->)", re.DOTALL)
    assert outside.sub("", page) == outside.sub("", original)
    for name in tables.TABLES:
        assert re.search(rf"<!-- study:{name} -->\n\|", page), name
    full = next(line for line in page.splitlines() if line.startswith("| full |"))
    assert full.endswith("**+0.051 ± 0.002** |")
    assert "| `base`" in (tmp_path / "out/docs/results.md").read_text()
    assert "mode `prefix`, pairs, uniform" in page
    results = json.loads((tmp_path / "out/bench/results/study.json").read_text())
    assert results["arms"]["full"]["usual"]["f1"]["mean"]["mean"] == pytest.approx(0.651)
    for picture in ("objective", "differences"):
        assert (tmp_path / f"out/docs/results/{picture}.png").stat().st_size > 10_000


def test_a_section_is_written_alone(tmp_path):
    write_study(tmp_path / "study")
    write_report(tmp_path / "study", tmp_path, "block")
    page, old = ((root / "docs/results.md").read_text() for root in (tmp_path, ROOT))
    assert "| `block` | speculative |" in page
    assert page.split("<!-- study:block_size -->")[0] == old.split("<!-- study:block_size -->")[0]
    assert page.split("<!-- /study:infill -->")[1] == old.split("<!-- /study:infill -->")[1]
    written = json.loads((tmp_path / "bench/results/study_block.json").read_text())
    assert written["arms"]["base"]["usual"]["f1"]["mean"]["n"] == 3
    assert not (tmp_path / "bench/results/study.json").exists()


def test_the_arms_of_mode_block_have_a_row_each(tmp_path):
    write_study(tmp_path / "study")
    record("block", 0, 0.25, "equal_time_threshold_0.9", 40).write(tmp_path / "study")
    write_report(tmp_path / "study", tmp_path, "block_arms")
    page = (tmp_path / "docs/results.md").read_text()
    table = page.split("<!-- study:block_arms -->")[1].split("<!-- /")[0]
    rows = [line.split(" | ") for line in table.strip().splitlines()]
    assert len({len(row) for row in rows}) == 1
    block = next(row for row in rows if row[0] == "| `block`")
    assert (block[8], block[10]) == ("40", "0.250")
    twin = next(row for row in rows if row[0] == "| `autoregressive`")
    assert twin[3].startswith("0.400")


def test_committed_results_are_put_back_as_records(tmp_path, capsys):
    write_study(tmp_path / "study")
    write_report(tmp_path / "study", tmp_path, "block")
    results = tmp_path / "bench/results/study_block.json"
    restore = ["--study", str(tmp_path / "other"), "--results", str(results)]
    assert restored(restore) == 0
    before, after = (
        {(r.arm, r.seed, r.step, r.variant): r.metrics for r in read_records(tmp_path / name)}
        for name in ("study", "other")
    )
    assert {key: pytest.approx(each, abs=1e-5) for key, each in before.items()} == after
    kept = replace(read_records(tmp_path / "other")[0], metrics={"f1": -1.0})
    kept.write(tmp_path / "other")
    assert restored(restore) == 0
    assert kept in read_records(tmp_path / "other")  # what is there stays
    assert "0 records written" in capsys.readouterr().out
    results.write_text("{}")
    assert restored(restore) == 2
    assert "is not a study's results: 'arms'" in capsys.readouterr().err


def test_a_page_without_its_marker_is_refused():
    with pytest.raises(ValueError, match="must hold <!-- study:context -->"):
        fill("no marker", {"context": "x"}, "docs/results.md")


def test_what_a_report_leaves_out_of_the_normal_is_counted():
    reference = "The heart size is normal. No pleural effusion or pneumothorax."
    said = "There is a small left pneumothorax. The heart size is normal."
    assert omitted_normal([reference, reference], [reference, said]) == pytest.approx(1 / 6)


def test_a_perfect_report_scores_one_and_errs_in_nothing():
    text = "There is a nodule in the left upper lung. No pleural effusion."
    found = score_texts([text], [frozenset({"nodule"})], [text])
    assert (found["f1"], found["rouge_l"], found["length_ratio"]) == (1.0, 1.0, 1.0)
    assert (found["length_error"], found["omitted_normal"], found["empty"]) == (0, 0, 0)


@pytest.mark.parametrize("module", ["arms", "run", "pool", "report", "checkpoint", "restore"])
def test_the_command_lines_explain_themselves(module):
    command = [sys.executable, "-m", f"bench.study.{module}", "--help"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"bench.study.{module}" in found.stdout


def test_the_script_refuses_what_it_does_not_know_and_names_its_variables():
    command = ["bash", str(ROOT / "bench/study.sh"), "--fast"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    for name in ("STEPS", "SEEDS", "ARMS", "STUDY"):
        assert name in found.stderr


def test_the_listing_names_every_arm(capsys):
    arms.main(["--seeds", "5"])
    assert capsys.readouterr().out.split() == [w for arm in ARMS for w in (arm.name, "5")]


def test_every_job_is_a_command_line_that_its_module_takes(settings):
    for job in plan(replace(settings, bf16=True), "", [0]):
        parsed = importlib.import_module(job.module)._parser().parse_args(job.arguments)
        assert getattr(parsed, "device", "cpu") == "cpu"


def curves(*quality_by_seed):
    """What `bench.decode_quality` writes under each seed: (F1, ROUGE-L) of five settings."""
    named = (
        ("reference", "one token a pass", True, 64.0),
        ("threshold", "0.9", True, 30.0),
        ("threshold", "0.7", True, 20.0),
        ("threshold", "0.5", True, 10.0),
        ("cache", "stale", False, 8.0),
    )
    names = ("group", "name", "exact", "passes", "f1", "rouge_l")
    return {
        seed: {
            "n": 60,
            "points": [
                dict(zip(names, (*row, *quality), strict=True)) | {"seconds": 0.1}
                for row, quality in zip(named, qualities, strict=True)
            ],
        }
        for seed, qualities in enumerate(quality_by_seed)
    }


SEEDS = (
    ((0.50, 0.5), (0.50, 0.5), (0.48, 0.5), (0.50, 0.4), (0.50, 0.5)),
    ((0.70, 0.5), (0.69, 0.5), (0.72, 0.5), (0.70, 0.4), (0.70, 0.5)),
)


def test_the_decoding_table_has_the_fewest_passes_of_a_curve_that_keep_the_quality_in_the_mean():
    merged = merge(curves(*SEEDS))
    assert merged["recommended"]["name"] == "0.7"  # the cache has fewer and is not exact
    lines = tables.decoding(merged).splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == [
        "| one token a pass",
        "| **0.7**",
        "| stale",
    ]
    assert "| 0.600 | 0.500 | – | – | 64.0 |" in lines[0]
    # differences of -0.02 and +0.02, whose interval is 12.7 standard errors wide
    assert "| +0.000 ± 0.254 | +0.000 ± 0.000 | 20.0 |" in lines[1]


def test_curves_of_other_settings_do_not_average():
    runs = curves(*SEEDS)
    runs[1]["points"].pop()
    with pytest.raises(ValueError, match=r"decode_quality_seed1\.json has other settings"):
        merge(runs)


def test_the_curves_of_a_study_are_read_by_seed(tmp_path):
    assert read_decoding(tmp_path) is None
    for seed, run in curves(*SEEDS).items():
        (tmp_path / f"decode_quality_seed{seed}.json").write_text(json.dumps(run))
    merged = read_decoding(tmp_path)
    assert (merged["seeds"], merged["n"]) == ([0, 1], 60)
    assert merged["points"][2]["by_seed"][1]["f1"] == 0.72
