"""What the page says, before any browser: findings, pieces of text, plots, tables, images."""

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llava.constants import IMAGE_PLACEHOLDER
from llava.data.prompt import human_turn
from llava.eval.external_scores import ExternalScore, Found
from llava.eval.page.figures import Statement, calibration, length_plot, statements, wilson
from llava.eval.page.findings import (
    AGREED,
    AS_NEGATIVE,
    AS_POSITIVE,
    DENIED,
    EXCLUDED,
    INVENTED,
    MISSED,
    compare,
    confuse,
    count_states,
    score_findings,
    verdict,
)
from llava.eval.page.images import data_url, embed_images
from llava.eval.page.run import NO_SPLIT, Run, context_fields, image_roles, read_run
from llava.eval.page.segments import cut, mark, place_tokens, sentences
from llava.eval.page.studies import flags, record, studies_of
from llava.eval.page.tables import Row, finding_interval, protocol_rows, score_table
from llava.eval.predictions import Prediction, PredictionError

PLEURAL = "Pleural Effusion"


def told(text: str, reference: str = "", **fields) -> Prediction:
    return Prediction(id="a", prediction=text, reference=reference, study_id="a", **fields)


def spelled(*pieces: str, text: str | None = None) -> Prediction:
    n = len(pieces)
    text = "".join(pieces) if text is None else text
    return told(text, tokens=pieces, confidence=(0.5,) * n, decided_at=tuple(range(n)))


def run_with(results: dict) -> Run:
    return Run(Path("run"), [told("x")], ["test"], {"metrics": {}, **results})


# --- the replay ---


def replayed(prediction: Prediction, generation: dict | None = None) -> dict:
    results = {"metrics": {}, "protocol": {"generation": generation or {}}}
    (study,) = studies_of(Run(Path("run"), [prediction], ["test"], results), AS_POSITIVE)
    return record(study, [], [])["tokens"]


SPECULATIVE = replace(
    spelled("The", " lungs", " are", " clear", ".", "<|im_end|>", text="The lungs are clear."),
    decided_at=(0, 1, 1, 2, 3, 3),
    drafts=((), (" lungs", " were"), (" not", "."), (".", "<|im_end|>")),
    nfe=4,
)
"""Accepted and corrected; rejected at once; accepted up to the end, with no token of its own."""


def test_the_replay_tells_accepted_from_discarded_drafts():
    assert replayed(SPECULATIVE)["drafts"] == [
        [],
        [(" lungs", True), (" were", False)],
        [(" not", False), (".", False)],
        [(".", True), ("<|im_end|>", True)],
    ]
    other_choice = replace(SPECULATIVE, decided_at=(0, 1, 1, 1, 2, 2), nfe=3)
    other_choice = replace(other_choice, drafts=((), (" lungs", " were", "."), (".", "<|im_end|>")))
    checked = replayed(other_choice)["drafts"][1]  # " are" was read as well: " clear" is known
    assert checked == [(" lungs", True), (" were", False), (".", False)]
    plain = replayed(replace(SPECULATIVE, drafts=()))
    assert plain == replayed(SPECULATIVE) | {"drafts": []}


def test_more_drafts_than_passes_are_not_of_this_report():
    with pytest.raises(PredictionError, match="5 passes with drafts, but nfe is 4"):
        Prediction.from_line(replace(SPECULATIVE, drafts=((),) * 5).to_line(), "line 1")


@pytest.mark.parametrize(
    ("generation", "block"),
    [
        ({"block_length": 8, "gen_length": 64, "decoder": "blocks"}, 8),
        ({"block_length": 8, "gen_length": 64}, 8),
        ({"block_length": 64, "gen_length": 64}, 0),
        ({"block_length": 8, "gen_length": 64, "decoder": "causal"}, 0),
        ({"gen_length": 64}, 0),
        ({"block_length": "8", "gen_length": 64}, 0),
    ],
)
def test_the_replay_knows_the_blocks_that_a_report_was_decoded_in(generation, block):
    assert replayed(spelled("Clear", "."), generation)["block"] == block
    assert replayed(SPECULATIVE, generation)["block"] == 0


# --- findings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "generated", "kind"),
    [
        (1, 1, AGREED),
        (1, None, MISSED),
        (1, 0, DENIED),
        (None, 1, INVENTED),
        (0, 1, INVENTED),
        (0, 0, EXCLUDED),
        (0, None, None),
        (None, None, None),
    ],
)
def test_the_verdict_on_a_finding_is_the_same_under_both_policies(reference, generated, kind):
    assert verdict(reference, generated, AS_POSITIVE) == kind
    assert verdict(reference, generated, AS_NEGATIVE) == kind


def test_the_policy_decides_what_an_uncertain_finding_is():
    assert verdict(-1, 1, AS_POSITIVE) == AGREED
    assert verdict(-1, 1, AS_NEGATIVE) == INVENTED
    assert verdict(1, -1, AS_NEGATIVE) == DENIED
    assert verdict(-1, None, AS_NEGATIVE) is None


PAIRS = (
    ("Moderate left pleural effusion.", "Small left pleural effusion."),
    ("Moderate left pleural effusion.", "There is a left apical pneumothorax."),
    ("Moderate left pleural effusion.", "No pleural effusion. Left apical pneumothorax."),
    ("Left apical pneumothorax.", "Left apical pneumothorax and a pleural effusion."),
)


def comparisons():
    return [compare(*pair, AS_POSITIVE) for pair in PAIRS]


def test_precision_and_recall_count_reports():
    scores = {score.name: score for score in score_findings(comparisons())}
    effusion, pneumothorax = scores[PLEURAL], scores["Pneumothorax"]
    assert (effusion.agreed, effusion.missed, effusion.denied, effusion.invented) == (1, 2, 1, 1)
    assert (effusion.precision, effusion.recall) == (1 / 2, 1 / 3)
    assert (pneumothorax.precision, pneumothorax.recall) == (1 / 3, 1)
    assert scores["Fracture"].precision is scores["Fracture"].recall is None


def test_confusion_says_what_was_invented_where_a_finding_was_missed():
    confusion = confuse(comparisons())
    effusion, pneumothorax = map(confusion.names.index, (PLEURAL, "Pneumothorax"))
    assert confusion.counts[effusion][effusion] == 1
    assert confusion.counts[effusion][pneumothorax] == 2
    assert confusion.counts[pneumothorax][effusion] == 0  # nothing was missed there
    assert confusion.unprompted[effusion] == 1
    assert confusion.stated[effusion] == 3
    assert sum(confusion.alone) == 0


def test_states_are_counted_over_all_findings_of_all_reports():
    counts = count_states(comparisons())
    assert sum(counts.values()) == 14 * len(PAIRS)
    assert counts[1, 0] == 1


# --- texts ---------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=6), max_size=12))
def test_the_pieces_of_a_text_join_to_the_text_and_keep_to_their_tokens(pieces):
    prediction = spelled(*pieces)
    places = place_tokens(prediction)
    found = sentences(prediction.prediction)
    parts = list(cut(prediction.prediction, found, places))
    assert "".join(part[0] for part in parts) == prediction.prediction
    by_token = {}
    for text, _, token in parts:
        by_token[token] = by_token.get(token, "") + text
    assert by_token == {index: piece for index, piece in enumerate(pieces) if piece}


def test_sentences_that_speak_of_findings_stand_where_they_stand():
    text = "PA view.\nNo effusion, 3.5 cm mass seen. Normal heart."
    spans = [text[slice(*sentence.span)] for sentence in sentences(text)]
    assert "No effusion, 3.5 cm mass seen." in spans
    assert "PA view." not in spans


def test_a_sentence_is_marked_by_the_whole_reports_verdicts():
    reference, generated = PAIRS[2]
    comparison = compare(reference, generated, AS_POSITIVE)
    denied, invented = sentences(generated)
    assert mark(denied, comparison) == ("differ", [(DENIED, PLEURAL)])
    assert mark(invented, comparison) == ("differ", [(INVENTED, "Pneumothorax")])
    (same,) = sentences(PAIRS[0][1])
    assert mark(same, compare(*PAIRS[0], AS_POSITIVE)) == ("agree", [])


def test_white_space_before_the_text_and_end_tokens_behind_it_have_no_place_in_it():
    places = place_tokens(spelled("\n", " The", " heart", "<|im_end|>", text="The heart"))
    assert places.spans == (((0, 3), 1), ((3, 9), 2))
    assert places.tail == (3,)


@pytest.mark.parametrize("pieces", [(), ("A", "nother"), ("So", "The heart")])
def test_tokens_that_do_not_spell_the_text_are_not_used(pieces):
    assert place_tokens(spelled(*pieces, text="The heart")) is None


def test_flags_need_what_the_run_recorded():
    assert flags(told(" ", tokens=("x",), ended=False)) == ["empty", "not ended"]
    assert flags(told("Stable effusion.", ended=False)) == []
    assert flags(told("Stable effusion.", context="Describe.")) == ["invented comparison"]
    assert flags(told("Stable effusion.", context="x. Comparison: CT of yesterday")) == []


# --- plots ---------------------------------------------------------------------------------------


def test_statements_take_the_confidence_of_their_own_sentence():
    text = "Left pleural effusion. No pneumothorax."
    prediction = replace(
        spelled("Left pleural effusion.", " No pneumothorax."), confidence=(0.4, 0.9)
    )
    comparison = compare("Pneumothorax. Effusion.", text, AS_POSITIVE)
    made = statements(
        comparison,
        sentences(text),
        place_tokens(prediction),
        prediction.confidence,
        AS_POSITIVE,
    )
    assert made == [Statement(True, 0.4, True), Statement(False, 0.9, False)]


def test_calibration_bins_by_confidence_and_measures_the_gap():
    made = [Statement(True, 0.91, True), Statement(True, 0.93, False), Statement(True, 1.0, True)]
    made += [Statement(False, 0.25, True)]
    result = calibration(made)
    (top,), (low,) = result.positive, result.negative
    assert (top.n, top.share) == (3, pytest.approx(2 / 3))
    assert top.low < top.share < top.high
    assert result.gap_positive == pytest.approx(abs((0.91 + 0.93 + 1.0) / 3 - 2 / 3))
    assert (low.confidence, low.share, result.gap_negative) == (0.25, 1.0, 0.75)
    assert calibration([]).gap_positive is None


def test_the_wilson_interval_is_the_published_one():
    assert wilson(1, 10) == pytest.approx((0.0179, 0.4042), abs=1e-4)  # Newcombe 1998, method 3
    assert wilson(0, 5)[0] == 0
    assert wilson(5, 5)[1] == 1


def test_lengths_are_words_and_texts_without_an_end_are_apart():
    plot = length_plot([told("a b", "a b c d"), told("a", "a", ended=False)])
    assert plot.ratio == 0.75
    assert plot.ended == ((plot.frame.x(4), plot.frame.y(2)),)
    assert plot.cut == ((plot.frame.x(1), plot.frame.y(1)),)
    assert length_plot([told("", "")]).ratio is None


# --- tables --------------------------------------------------------------------------------------


def test_every_number_has_a_row_with_its_interval_and_its_baselines():
    scores = {"precision": 0.5, "recall": 0.25, "f1": 1 / 3, "support": 4}
    clinical = {AS_POSITIVE: {"micro_14": scores, "per_finding": {"Edema": scores}, "n": 2}}
    run = run_with(
        {
            "metrics": {"raw": {"BLEU-4": 0.1}, "r2gen": {"BLEU-4": 0.2}},
            "clinical": clinical,
            "intervals": {
                "raw": {"BLEU-4": [0.05, 0.15]},
                AS_POSITIVE: {"micro_14": {"f1": [0.3, 0.4]}},
                "health": {"empty": [0.0, 7.0]},
            },
            "baselines": {
                "nearest": {"raw": {"BLEU-4": 0.07}, "health": {"repetition": 0.5, "empty": None}}
            },
            "health": {"repetition": 0.25, "empty": 3, "unavailable": {"truncated": "no tokens"}},
        }
    )
    table = score_table(run)
    rows = {
        (g.title, r.name): (r.value, r.interval, r.baselines) for g in table.groups for r in g.rows
    }
    assert rows["Text overlap, raw", "BLEU-4"] == ("0.100", "0.050 – 0.150", ("0.070",))
    assert rows["Text overlap, r2gen", "BLEU-4"] == ("0.200", "", ("",))
    policy = "Findings, uncertain counted as positive"
    assert rows[policy, "micro, 14 findings, F1"] == ("0.333", "0.300 – 0.400", ("",))
    assert rows["Health of the text", "repeated 4-grams"] == ("0.250", "", ("0.500",))
    assert rows["Health of the text", "empty reports"] == ("3", "0 – 7", ("",))
    assert not any("Edema" in name or "support" in name for _, name in rows)
    assert table.groups[-1].absent == (("truncated", "no tokens"),)
    assert table.has_intervals


def test_the_table_of_an_older_run_is_flat_and_a_nan_is_no_number():
    metrics = {"BLEU-4": 0.1, "METEOR": float("nan")}
    table = score_table(run_with({"metrics": metrics, "unavailable": {"CIDEr": "no Java"}}))
    assert [row.value for row in table.groups[0].rows] == ["0.100", "unavailable"]
    assert table.groups[1].absent == (("CIDEr", "no Java"),)
    assert not table.has_intervals


def test_intervals_of_a_finding_are_those_of_the_policy():
    edema = {"Edema": {"recall": [0.1, 0.2]}}
    run = run_with({"intervals": {AS_POSITIVE: {"per_finding": edema}}})
    assert finding_interval(run, AS_POSITIVE, "Edema", "recall") == (0.1, 0.2)
    assert finding_interval(run, AS_NEGATIVE, "Edema", "recall") is None
    assert finding_interval(run, AS_POSITIVE, "Fracture", "precision") is None


def test_the_protocol_has_a_line_for_each_setting():
    protocol = {"generation": {"steps": 8, "stop": []}, "data": [{"n": 1}], "seed": None}
    assert protocol_rows(run_with({"protocol": protocol})) == [
        ("generation · steps", "8"),
        ("generation · stop", "none"),
        ("data · 1 · n", "1"),
        ("seed", "none"),
    ]


# --- the run -------------------------------------------------------------------------------------


def write_run(folder: Path, records: list[dict], **results) -> Path:
    lines = [json.dumps(record) + "\n" for record in records]
    (folder / "predictions.jsonl").write_text("".join(lines))
    (folder / "results.json").write_text(json.dumps({"metrics": {"BLEU-4": 0.1}, **results}))
    return folder


RECORD = {"id": "a", "prediction": "The heart is normal.", "reference": "Clear lungs."}
TOKENS = {"tokens": ["x", "y"], "confidence": [0.5, 1.0], "decided_at": [0, 1]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({**TOKENS, "confidence": [0.5]}, "2 tokens, 1 confidence"),
        ({**TOKENS, "confidence": [0.5, float("nan")]}, "nan among its confidence"),
        ({**TOKENS, "confidence": [0.5, 1.7]}, "1.7 among its confidence"),
        ({**TOKENS, "decided_at": [0, -1]}, "-1 among its decided_at"),
        ({**TOKENS, "tokens": ["x", 3]}, "3 among its tokens"),
        ({**TOKENS, "nfe": 2, "drafts": [["x"], "y"]}, "'y' among its drafts"),
        ({**TOKENS, "nfe": 2, "drafts": [["x"]]}, "1 passes with drafts, but nfe is 2"),
    ],
)
def test_tokens_that_contradict_themselves_are_refused(tmp_path, change, words):
    with pytest.raises(ValueError, match=words):
        read_run(write_run(tmp_path, [{**RECORD, **change}]))


def test_results_of_another_run_are_refused(tmp_path):
    with pytest.raises(ValueError, match="1 predictions but"):
        read_run(write_run(tmp_path, [RECORD], n=2))


def test_a_folder_that_is_no_evaluation_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_run(tmp_path)
    write_run(tmp_path, [RECORD])
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(ValueError, match="is a JSON list, not an object"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ({"split": "val"}, ["val", "val"]),
        ({"data": [{"json_path": "x/test_llave_llada.json", "n": 2}]}, ["test", "test"]),
        (
            {"data": [{"json_path": "train_a.json", "n": 1}, {"json_path": "latest.json", "n": 1}]},
            ["train", NO_SPLIT],
        ),
        ({"data": [{"json_path": "test.json", "n": 5}]}, [NO_SPLIT, NO_SPLIT]),
        ({"split": NO_SPLIT}, [NO_SPLIT, NO_SPLIT]),
    ],
)
def test_the_split_is_the_protocols_or_the_data_files(tmp_path, protocol, expected):
    records = [RECORD, {**RECORD, "id": "b"}]
    assert read_run(write_run(tmp_path, records, protocol=protocol)).splits == expected


def test_context_is_taken_apart_into_its_fields():
    turn = "Describe. Following clinical context: Indication: cough. History: Prior: none."
    assert context_fields(turn) == [("Indication", "cough."), ("History", "Prior: none.")]
    assert context_fields("Describe. Following clinical context: fever") == [("Context", "fever")]
    assert context_fields("Describe.") == []
    prior = "Following clinical context: Comparison: May. Prior report: Clear lungs."
    assert context_fields(prior) == [("Comparison", "May."), ("Prior report", "Clear lungs.")]


def test_each_image_has_the_word_of_role_of_the_human_turn():
    turn = human_turn({"indication": "cough"}, ["Frontal", "Prior frontal"], "Clear lungs.")
    context = turn.replace(IMAGE_PLACEHOLDER, "").strip()
    assert image_roles(context, 2) == ["Frontal", "Prior frontal"]
    assert image_roles(context, 3) == ["", "", ""]
    assert image_roles("Describe.", 1) == [""]


def test_the_scores_of_others_are_groups_of_their_own_by_policy():
    nested = {"as_positive": {"micro_14": {"f1": 0.5}, "labeler": "CheXbert"}}
    ranges = {"as_positive": {"micro_14": {"f1": [0.25, 0.75]}}}

    def score(values, intervals):
        fields = dict.fromkeys(("metric", "predictions"), ""), dict.fromkeys(("n", "n_scored"), 3)
        rest = {"package": "p 1", "note": "LOWER is better", "n_empty": 0, "per_sample": {}}
        both = {"values": values, "intervals": intervals}
        return ExternalScore(**fields[0], **fields[1], **rest, **both)

    scores = {"chexbert": score(nested, ranges), "radcliq": score({"radcliq_v1": 1.0}, {})}
    of_baselines = {"near": Found({"radcliq": score({"radcliq_v1": 2.0}, {})})}
    run = run_with({"baselines": {"near": {}}})
    external = Found(scores, {"radgraph": "file is damaged"})
    table = score_table(replace(run, external=external, of_baselines=of_baselines))
    chexbert, radcliq, absent = table.groups
    assert chexbert.title == "CheXbert, by p 1, uncertain counted as positive"
    assert chexbert.rows == (Row("micro, 14 findings, F1", "0.500", "0.250 – 0.750", ("",)),)
    assert radcliq.rows == (Row("RadCliQ-v1", "1.000", "", ("2.000",)),)
    assert radcliq.note == "LOWER is better; 3 of 3 reports"
    assert absent.absent == (("radgraph", "file is damaged"),)


# --- images --------------------------------------------------------------------------------------


def opened(url: str) -> Image.Image:
    import base64

    head, _, data = url.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(BytesIO(base64.b64decode(data)))


def test_an_image_is_embedded_at_reading_size_without_its_metadata():
    picture = Image.new("RGB", (400, 200), (200, 200, 200))
    picture.getexif()[270] = "patient name"
    small = opened(data_url(picture, 100))
    assert small.size == (100, 50)
    assert not small.getexif()
    assert opened(data_url(Image.new("RGB", (40, 20), "red"), 100)).size == (40, 20)


def test_images_that_cannot_be_shown_are_reported_and_paths_stay_in_their_root(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "out.png")
    Image.new("L", (8, 8)).save(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    names = ("good.png", "bad.png", "missing.png", "../out.png", str(tmp_path / "out.png"))
    prediction = told("x", images=names, image_folder=str(tmp_path / "in"))
    ((good, *bad),) = embed_images([prediction], None, 100, workers=1)
    assert good.url
    assert all(image.problem and not image.url for image in bad)
    ((homeless,),) = embed_images([told("x", images=("good.png",))], None, 100, workers=1)
    assert "--image-folder" in homeless.problem
    ((moved,),) = embed_images([told("x", images=("good.png",))], tmp_path / "in", 100, workers=1)
    assert moved.url
