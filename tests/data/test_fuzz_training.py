"""Whatever is in a conversations JSON or a mixture: entries that can be trained on, or one line."""

import json
import tempfile
from pathlib import Path

from fuzzing import ANY, FEW, IMAGE, ODD_TEXT, often, value
from hypothesis import given
from hypothesis import strategies as st

from llava.data.samples.reading import load_entries

CONVERSATION = st.builds(
    lambda number, answer, changed: {
        "id": number,
        "image": f"p10/{number}.png",
        "conversations": [
            {"from": "human", "value": "<image> Describe."},
            {"from": "gpt", "value": answer},
        ],
        **changed,
    },
    st.integers(),
    often(st.just("Clear."), ODD_TEXT),
    often(
        st.just({}),
        st.fixed_dictionaries(
            {},
            optional={
                "id": ANY,
                "study_id": ANY,
                "context": ANY,
                "image": st.one_of(ANY, st.lists(IMAGE, max_size=2)),
                "conversations": st.one_of(
                    ANY, st.lists(st.fixed_dictionaries({"from": ANY, "value": ANY}), max_size=3)
                ),
            },
        ),
    ),
)
PART = st.fixed_dictionaries(
    {"json_path": value(st.just("data.json")), "image_folder": value(st.just("."))},
    optional={
        "sampling": value(st.sampled_from(["all", "first:50%", "random:1%", "weight:1.5", 2, 0.1]))
    },
)
MIXTURE = often(
    st.fixed_dictionaries(
        {"datasets": value(st.lists(value(PART), min_size=1, max_size=3))},
        optional={"seed": value(st.integers(0, 5))},
    ),
    st.one_of(ANY, st.fixed_dictionaries({"datasets": st.just([{"samplng": "all"}])})),
)


@FEW
@given(content=value(st.lists(value(CONVERSATION), max_size=3)), mixture=MIXTURE)
def test_any_conversations_and_any_mixture(content, mixture):
    with tempfile.TemporaryDirectory() as folder:
        path, yaml = Path(folder) / "data.json", Path(folder) / "mix.yaml"
        path.write_text(json.dumps(content), encoding="utf-8")
        yaml.write_text(json.dumps(mixture), encoding="utf-8")
        for given_path, image_folder in ((path, folder), (yaml, None)):
            entries, error = attempt(given_path, image_folder)
            assert entries or folder in error
            for entry in entries:
                questions = [m["value"] for m in entry.messages if m["from"] == "human"]
                assert sum(q.count("<image>") for q in questions) == len(entry.images)
                assert not any(".." in image for image in entry.images)


def attempt(path, image_folder):
    try:
        return load_entries(path, image_folder), ""
    except (ValueError, FileNotFoundError) as error:
        return [], str(error)
