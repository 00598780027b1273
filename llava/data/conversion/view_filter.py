"""Choose the views that a conversion takes (`--view`)."""

import argparse
from collections.abc import Sequence

from llava.data.conversion.cleaning import shown

VIEWS = {"frontal": ("frontal",), "all": ("frontal", "lateral")}


def check_view(value: str, where: str) -> str:
    """Return frontal or lateral, from any letter case. Raises ValueError on another view."""
    view = value.strip().lower()
    if view not in VIEWS["all"]:
        raise ValueError(f"{where} is {shown(value)}; it must be Frontal or Lateral")
    return view


def views_apart(
    listed: Sequence[tuple[str, str]], choice: str
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Return the images of `listed` (image, view) that `choice` takes, and the others with why."""
    wanted = VIEWS[choice]
    taken = tuple(image for image, view in listed if view in wanted)
    others = ((image, view) for image, view in listed if view not in wanted)
    return taken, tuple((image, f"{view} view (--view {choice})") for image, view in others)


def add_view(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--view", choices=VIEWS, default="frontal", help="images to take (default: frontal)"
    )
