"""Copy a dataset with a blank picture for every image: what a model knows without seeing.

    python -m llava.phantom.blank --data-path test_llave_llada.json --output DIR

Writes DIR/blank.png, mid-grey, and DIR/test_llave_llada.json, where every image is that file.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.data.samples.entry import study_in_path
from llava.data.samples.json_stream import read_list

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m llava.phantom.blank",
        description="Copy a conversations JSON with every image replaced by a blank one.",
    )
    parser.add_argument("--data-path", type=Path, required=True, help="conversations JSON")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    args = parser.parse_args(argv)
    try:
        write_blank(args.data_path, args.output)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def write_blank(data_path: Path, output: Path, size: int = 128) -> None:
    """Write the blank picture and the copy. Raises OSError or ValueError on a bad `data_path`."""
    from PIL import Image

    entries = list(read_list(data_path))
    output.mkdir(parents=True, exist_ok=True)
    Image.new("L", (size, size), 128).save(output / "blank.png")
    blank = [{**entry, "study_id": _study(entry), "image": "blank.png"} for entry in entries]
    (output / data_path.name).write_text(json.dumps(blank, ensure_ascii=False), encoding="utf-8")


def _study(entry: Mapping[str, Any]) -> str:
    """Return the study, which the copy's path no longer tells: runs on both compare by study."""
    images = entry["image"]
    listed = [images] if isinstance(images, str) else images
    return str(entry.get("study_id") or study_in_path(listed) or entry["id"])


if __name__ == "__main__":
    sys.exit(main())
