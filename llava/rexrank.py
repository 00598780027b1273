"""Write the reports that the ReXrank leaderboard asks for: its input form in, its output form out.

    python -m llava.rexrank --input_json_file X --save_json_file Y --img_root_dir Z --model_path M

    X: {study: {image_path, context}} -> Items -> `writing.run` -> Y: the same + model_prediction

The leaderboard calls the first three options only; MODEL_PATH replaces the fourth. The reports
are kept in Y.reports.jsonl while they are written, by any number of processes (torchrun, srun), so
that a run that was cut off continues.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.command_line import whole_number
from llava.constants import CLINICAL_FIELDS, IMAGE_PLACEHOLDER
from llava.store import read_object, whole_file

if TYPE_CHECKING:
    from llava.diffusion.sampler import SamplingConfig
    from llava.writing.items import Item
    from llava.writing.output import OutputFile
    from llava.writing.processes import Processes

ANSWER = "model_prediction"
VIEWS = ("all", "key")
_DECISIVE = ("input_json_file", "img_root_dir", "views")
_LABELS = ("age", "gender", "sex", *CLINICAL_FIELDS)
_LABEL = re.compile(rf"(?:^|(?<=[\s.;,]))({'|'.join(_LABELS)})\s*:\s*", re.IGNORECASE)
_SEXES = {"m": "male", "f": "female"}
_NOTHING = {"", "none", "nan", "n/a", "unknown", "not provided"}


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    from llava.writing.processes import run_command

    return run_command(lambda processes: _write(args, processes))


def read_studies(path: Path) -> dict[str, dict[str, Any]]:
    """Raises ValueError or FileNotFoundError naming the file, the study and the field."""
    if not path.is_file():
        raise FileNotFoundError(f"--input_json_file {str(path)!r} does not exist")
    studies = read_object(path)
    if not studies:
        raise ValueError(f"{str(path)!r} holds no study; give an object of studies by their name")
    for name, study in studies.items():
        images = study.get("image_path") if isinstance(study, dict) else None
        images = [images] if isinstance(images, str) else images
        if not isinstance(images, list) or not images or not all(map(_is_path, images)):
            raise ValueError(
                f"{str(path)!r}, study {name!r}, field 'image_path': {images!r:.80} is not a list "
                "of paths"
            )
    return studies


def items_of(
    studies: Mapping[str, Mapping[str, Any]], root: Path, views: str = VIEWS[0]
) -> list[Item]:
    """An item for each study, in the order of the file; its id is the study's name.

    root: what the image paths start from, whose leading "/" is not one of the file system.
    views: all images of a study, or only its key image.
    """
    from llava.data.prompt import human_turn
    from llava.writing.items import make_item

    items = []
    for index, (name, study) in enumerate(studies.items()):
        images, roles = _images(study, views)
        prompt = human_turn(clinical_context(study.get("context")), roles)
        if prompt.count(IMAGE_PLACEHOLDER) != len(images):
            raise ValueError(f"study {name!r}: its context holds {IMAGE_PLACEHOLDER}; remove it")
        items.append(make_item(name, images, root, prompt, index, None, study=name))
    return items


def clinical_context(text: object) -> dict[str, str]:
    """ReXrank's context by field: "Age:50-60.Gender:M.Indication: cough. Comparison: None."

    Age and gender begin the indication, as they do in the reports that models are trained on.
    """
    if not isinstance(text, str):
        return {}
    first, *rest = _LABEL.split(" ".join(text.split()))
    found = {
        label.lower(): value.strip().rstrip(".").strip()
        for label, value in zip(rest[::2], rest[1::2], strict=True)
    }
    found = {label: value for label, value in found.items() if value.lower() not in _NOTHING}
    sex = found.get("gender", found.get("sex", ""))
    age = f"{found['age']}-year-old" if "age" in found else ""
    who = " ".join(filter(None, (age, _SEXES.get(sex.lower(), sex))))
    parts = (who, first.strip().rstrip("."), found.get("indication", ""))
    indication = ". ".join(part for part in parts if part)
    fields = {**{name: found.get(name, "") for name in CLINICAL_FIELDS}, "indication": indication}
    return {name: value for name, value in fields.items() if value}


def _images(study: Mapping[str, Any], views: str) -> tuple[list[str], list[str]]:
    """(paths without their leading "/", the word before each; none for one image)."""
    from llava.data.prompt import role_of

    listed = study["image_path"]
    listed = [listed] if isinstance(listed, str) else listed
    sides = study.get("frontal_lateral")
    sides = [sides] if isinstance(sides, str) else sides if isinstance(sides, list) else []
    sides = [str(side) for side in sides] if len(sides) == len(listed) else [""] * len(listed)
    key = study.get("key_image_path")
    if views == "key":
        place = listed.index(key) if key in listed else 0
        listed, sides = [listed[place]], [""]
    roles = [role_of(side) for side in sides] if len(listed) > 1 else []
    return [path.lstrip("/") for path in listed], roles


def _write(args: argparse.Namespace, processes: Processes) -> int:
    """Exit status: 1 unless every study has its report."""
    from llava.model.checkpoint import checkpoint_id
    from llava.store import read_records
    from llava.writing.run import write_file
    from llava.writing.writer import ReportWriter

    studies, items, output, sampling = processes.agree(lambda: _prepare(args))
    device = processes.device()
    dtype = "float32" if device == "cpu" else "bfloat16"

    def settings() -> dict[str, Any]:
        given = {name: str(getattr(args, name)) for name in _DECISIVE}
        checkpoint = checkpoint_id(args.model_path)
        return {"checkpoint_id": checkpoint, "dtype": dtype, **given, **asdict(sampling)}

    outcome = write_file(
        items,
        lambda: ReportWriter.from_pretrained(args.model_path, device=device, dtype=dtype),
        sampling,
        output,
        settings,
        batch_size=args.batch_size,
        processes=processes,
    )
    if processes.rank:
        return 0
    _answer(studies, read_records(output.path), args.save_json_file)
    print(f"{outcome.summary()}; {args.save_json_file}", file=sys.stderr)
    return 1 if outcome.failed else 0


def _prepare(
    args: argparse.Namespace,
) -> tuple[dict[str, dict[str, Any]], list[Item], OutputFile, SamplingConfig]:
    """Check everything that can be checked before a model is loaded."""
    from llava.diffusion.sampler import SamplingConfig
    from llava.model.checkpoint import check_checkpoint, check_sampling
    from llava.writing.output import OutputFile

    if not args.model_path:
        raise ValueError("give --model_path, or set MODEL_PATH: the checkpoint's folder")
    if not args.img_root_dir.is_dir():
        raise FileNotFoundError(f"--img_root_dir {str(args.img_root_dir)!r} is not a folder")
    studies = read_studies(args.input_json_file)
    items = items_of(studies, args.img_root_dir, args.views)
    sampling = SamplingConfig(gen_length=args.gen_length)
    check_sampling(check_checkpoint(args.model_path), sampling)
    args.save_json_file.parent.mkdir(parents=True, exist_ok=True)
    reports = args.save_json_file.with_name(f"{args.save_json_file.name}.reports.jsonl")
    return studies, items, OutputFile(reports), sampling


def _answer(
    studies: Mapping[str, Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]], path: Path
) -> None:
    """Write the studies with the reports that were found for them."""
    answered = {
        name: {**study, ANSWER: found[name]["prediction"]} if name in found else study
        for name, study in studies.items()
    }
    with whole_file(path) as file:
        json.dump(answered, file, indent=2, ensure_ascii=False)


def _is_path(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip("/ "))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.rexrank",
        description="Write the reports of a ReXrank test set: the runner that the leaderboard "
        "calls. Options are spelled as it spells them.",
    )
    add, count = parser.add_argument, whole_number(1)
    add("--input_json_file", type=Path, required=True, help="studies by name, as ReXrank has them")
    add("--save_json_file", type=Path, required=True, help=f"the same with {ANSWER} in each")
    add("--img_root_dir", type=Path, required=True, help="where the image paths start")
    add(
        "--model_path",
        default=os.environ.get("MODEL_PATH"),
        help="checkpoint folder (default: the variable MODEL_PATH)",
    )
    add("--views", choices=VIEWS, default=VIEWS[0], help="images of a study (default: all)")
    add("--gen_length", type=count, default=128, help="tokens of a report at most (default 128)")
    add("--batch_size", type=count, default=8, help="reports at once (default 8)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
