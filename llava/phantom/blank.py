"""The same questions with a blank picture: what a model knows without seeing.

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
    """Raises OSError or ValueError when `data_path` cannot be read."""
    from PIL import Image

    entries = json.loads(data_path.read_text(encoding="utf-8"))
    output.mkdir(parents=True, exist_ok=True)
    Image.new("L", (size, size), 128).save(output / "blank.png")
    blank = [{"study_id": _study(e), **e, "image": "blank.png"} for e in entries]
    (output / data_path.name).write_text(json.dumps(blank, ensure_ascii=False), encoding="utf-8")


def _study(entry: Mapping[str, Any]) -> str:
    """The path that said so is gone from the copy, and runs on both are compared by study."""
    images = entry["image"]
    return study_in_path([images] if isinstance(images, str) else images) or entry["id"]


if __name__ == "__main__":
    sys.exit(main())
