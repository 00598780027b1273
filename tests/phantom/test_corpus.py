"""The phantom corpus: what is drawn by lot, painted and written agree, and the folder is safe."""

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava.phantom import FINDINGS, Finding, sample_findings
from llava.phantom.__main__ import main
from llava.phantom.corpus import ANNOTATION, SETTINGS, CorpusConfig, CorpusError, write_corpus
from llava.phantom.difficulty import EASY
from llava.phantom.language import MAX_WORDS, is_portable, write_context, write_report
from llava.phantom.lesions import render

SMALL = CorpusConfig(train=34, val=3, test=5, size=64)


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "corpus"
    write_corpus(folder, SMALL, workers=1)
    return folder


@pytest.fixture(scope="module")
def annotation(corpus) -> dict:
    return json.loads((corpus / ANNOTATION).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def reports() -> list[tuple[tuple[Finding, ...], str]]:
    cases = [sample_findings(rng(1, i)) for i in range(1500)]
    return [(case, write_report(case, i % 2 == 0, rng(2, i))) for i, case in enumerate(cases)]


# --- the lot -------------------------------------------------------------------------------------


def test_every_finding_is_common_and_normal_stands_alone():
    cases = [[finding.name for finding in sample_findings(rng(0, i))] for i in range(4000)]
    counts = Counter(name for case in cases for name in case)
    assert set(counts) == set(FINDINGS)
    assert 0.20 < counts["normal"] / len(cases) < 0.25
    assert all(counts[name] / len(cases) > 0.08 for name in FINDINGS)
    assert all(case == ["normal"] for case in cases if "normal" in case)
    assert max(map(len, cases)) == len(EASY.counts)
    assert all(case == sorted(case, key=FINDINGS.index) for case in cases)


def test_findings_of_one_lung_do_not_share_a_zone():
    for i in range(3000):
        case = sample_findings(rng(0, i))
        places = [(f.side, f.zone) for f in case if f.zone]
        filled = {f.side for f in case if f.name.endswith("effusion")}
        assert not any(f.zone == "lower" and f.side in filled for f in case)
        assert len(places) - len(set(places)) <= 1


# --- the picture ---------------------------------------------------------------------------------


def test_a_picture_is_grey_square_and_repeatable():
    case = sample_findings(rng(3))
    first, second = (np.asarray(render(case, 96, rng(4))) for _ in range(2))
    assert first.dtype == np.uint8
    assert first.shape == (96, 96)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, np.asarray(render(case, 96, rng(5))))


ALONE = [
    Finding("cardiomegaly", size="mild"),
    *(Finding(f"{side}_effusion", side, "small") for side in ("left", "right")),
    *(Finding(f"{side}_pneumothorax", side, "small") for side in ("left", "right")),
    *(Finding(f"{side}_consolidation", side, zone="mid") for side in ("left", "right")),
    Finding("edema", size="mild"),
    Finding("atelectasis", "right", zone="lower"),
    Finding("nodule", "left", zone="upper"),
    Finding("pacemaker", "left", kind="dual"),
    Finding("tube_or_line", kind="endotracheal"),
    Finding("tube_or_line", "right", kind="central"),
]


@cache
def average(findings: tuple[Finding, ...], seed: int) -> np.ndarray:
    """The mean of 40 pictures, (112, 112)."""
    pictures = [render(findings, 224, rng(seed, i)).resize((112, 112)) for i in range(40)]
    return np.mean([np.asarray(picture, dtype=float) for picture in pictures], axis=0)


def changed(*case: Finding, seed: int = 6) -> np.ndarray:
    """Which of 112 x 112 pixels differ, on the mean of 40 pictures, from normal ones.

    The outer columns are left out: there the pose alone moves the edge of the body.
    """
    difference = np.abs(average(case, seed) - average((Finding("normal"),), 6))
    difference[:, :15] = difference[:, 97:] = 0
    return difference > 26


@pytest.mark.parametrize("finding", ALONE, ids=lambda finding: finding.name)
def test_the_least_of_every_finding_shows_at_112_pixels(finding):
    assert changed(finding).sum() >= 50


def test_two_sets_of_normal_pictures_do_not_differ():
    assert changed(Finding("normal"), seed=60).sum() < 5


@pytest.mark.parametrize("kind", ["effusion", "pneumothorax", "consolidation"])
def test_the_patients_left_is_the_right_half_of_the_picture(kind):
    for side, columns in (("left", slice(56, None)), ("right", slice(None, 56))):
        change = changed(Finding(f"{side}_{kind}", side, size="moderate", zone="mid"))
        assert change[:, columns].sum() > 0.97 * change.sum() > 100


# --- the words -----------------------------------------------------------------------------------


def test_reports_are_short_varied_and_in_few_words(reports):
    texts = [text for _, text in reports]
    lengths = [len(text.split()) for text in texts]
    assert 27 <= np.mean(lengths) <= 33
    assert max(lengths) <= MAX_WORDS
    assert {text.count(".") for text in texts} <= set(range(2, 7))
    assert len({word for text in texts for word in re.findall(r"[a-z-]+", text.lower())}) < 350
    assert len(set(texts)) > 0.9 * len(texts)
    assert not any(re.search(r"[{}]|  | \.", text) for text in texts)


def test_size_side_and_zone_in_a_report_are_those_of_the_picture():
    for i in range(40):
        text = write_report((Finding("right_effusion", "right", "large"),), False, rng(7, i))
        assert re.search(r"\blarge\b", text, re.I)
        assert re.search(r"\bright\b", text, re.I)
        assert not re.search(r"\b(?:left|small|moderate)\b", text, re.I)
        text = write_report((Finding("nodule", "left", zone="upper"),), False, rng(7, i))
        assert re.search(r"\bleft upper\b", text, re.I)


def test_the_context_alone_does_not_give_the_findings_away():
    """A guess by the share of each finding under the same indication stays below F1 0.5."""

    def draw(start: int, count: int) -> list[tuple[str, set[str]]]:
        cases = [sample_findings(rng(8, i)) for i in range(start, start + count)]
        contexts = [
            write_context(c, is_portable(c, rng(9, i)), rng(10, i)) for i, c in enumerate(cases)
        ]
        complaints = [text.get("indication", "").rpartition("with ")[2] for text in contexts]
        return [(text, {f.name for f in c}) for text, c in zip(complaints, cases, strict=True)]

    seen, shares = Counter(), Counter()
    for text, names in draw(0, 6000):
        seen[text] += 1
        shares.update((text, name) for name in names)
    best = 0.0
    for threshold in (0.1, 0.15, 0.2, 0.25, 0.3, 0.4):
        agreed = guessed = stated = 0
        for text, names in draw(6000, 2000):
            guess = {name for name in FINDINGS if shares[text, name] > threshold * seen[text]}
            agreed, guessed, stated = (
                agreed + len(guess & names),
                guessed + len(guess),
                stated + len(names),
            )
        best = max(best, 2 * agreed / (guessed + stated))
    assert best < 0.45


# --- the folder ----------------------------------------------------------------------------------


def test_the_annotation_has_mimics_shape_and_every_picture_exists(corpus, annotation):
    sizes = {split: len(entries) for split, entries in annotation.items()}
    assert sizes == {"train": 34, "val": 3, "test": 5}
    ids = [entry["id"] for entries in annotation.values() for entry in entries]
    assert len(set(ids)) == len(ids)
    for split, entries in annotation.items():
        for entry in entries:
            assert re.fullmatch(r"(?:[0-9a-f]{8}-){4}[0-9a-f]{8}", entry["id"])
            (path,) = entry["image_path"]
            assert path == f"p10/p{entry['subject_id']}/s{entry['study_id']}/{entry['id']}.jpg"
            assert entry["split"] == split
            assert entry["report"]
            assert set(entry["findings"]) <= set(FINDINGS)
            with Image.open(corpus / path) as picture:
                assert (picture.format, picture.mode, picture.size) == ("JPEG", "L", (64, 64))


def test_subjects_have_several_studies_and_never_cross_splits(annotation):
    subjects = {s: [entry["subject_id"] for entry in annotation[s]] for s in annotation}
    assert len(set(subjects["train"])) < len(subjects["train"])
    assert not set(subjects["train"]) & set(subjects["test"])
    assert not set(subjects["val"]) & (set(subjects["train"]) | set(subjects["test"]))


def test_context_fields_are_sometimes_absent_and_never_empty(annotation):
    fields = ("indication", "comparison", "history", "technique")
    for field in fields:
        values = [entry.get(field) for entry in annotation["train"]]
        assert None in values
        assert any(values)
        assert "" not in values


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(corpus, tmp_path):
    write_corpus(tmp_path / "two", SMALL, workers=2)
    assert files(tmp_path / "two") == files(corpus)


def test_a_split_does_not_depend_on_the_size_of_another(annotation, tmp_path):
    write_corpus(tmp_path / "c", CorpusConfig(train=2, val=0, test=5, size=64), workers=1)
    again = json.loads((tmp_path / "c" / ANNOTATION).read_text(encoding="utf-8"))
    assert again["test"] == annotation["test"]
    assert again["train"] == annotation["train"][:2]


def test_a_folder_in_use_is_refused_and_only_a_corpus_is_replaced(tmp_path):
    tiny = CorpusConfig(train=1, val=0, test=0, size=64)
    other = tmp_path / "real"
    other.mkdir()
    (other / ANNOTATION).write_text("{}")
    for overwrite in (False, True):
        with pytest.raises(CorpusError, match="output="):
            write_corpus(other, tiny, workers=1, overwrite=overwrite)
    assert (other / ANNOTATION).read_text() == "{}"
    write_corpus(tmp_path / "c", tiny, workers=1)
    with pytest.raises(CorpusError, match="--overwrite"):
        write_corpus(tmp_path / "c", tiny, workers=1)
    write_corpus(tmp_path / "c", CorpusConfig(1, 0, 0, 64, seed=1), workers=1, overwrite=True)
    assert json.loads((tmp_path / "c" / SETTINGS).read_text())["seed"] == 1


def test_an_interrupted_run_leaves_the_old_corpus_and_nothing_else(tmp_path, monkeypatch):
    tiny = CorpusConfig(train=1, val=0, test=0, size=64)
    write_corpus(tmp_path / "c", tiny, workers=1)
    before = files(tmp_path)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("llava.phantom.corpus.write_report", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_corpus(tmp_path / "c", tiny, workers=1, overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        write_corpus(tmp_path / "new", tiny, workers=1)
    assert files(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--train", "-1"], "train=-1"),
        (["--train", "0", "--val", "0", "--test", "0"], "all 0"),
        (["--size", "16"], "size=16"),
        (["--seed", "-3"], "seed=-3"),
    ],
)
def test_a_bad_request_names_the_field_and_writes_nothing(arguments, named, tmp_path, capsys):
    assert main(["--output", str(tmp_path / "c"), *arguments]) == 2
    assert named in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_count_of_workers_that_is_none_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--output", str(tmp_path / "c"), "--workers", "0"])
    assert "--workers: '0' is not a whole number of at least 1" in capsys.readouterr().err


def test_the_command_writes_a_corpus_and_prints_the_counts(tmp_path, capsys):
    small = ["--train", "4", "--val", "1", "--test", "1", "--size", "64", "--workers", "1"]
    assert main(["--output", str(tmp_path / "c"), *small]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in FINDINGS)
    assert (tmp_path / "c" / ANNOTATION).is_file()


def test_the_help_names_the_output(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--output" in capsys.readouterr().out
