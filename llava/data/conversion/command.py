"""Share options, image lookup, counts and output between the command lines of conversions.

    source files -> a collection's reader -> Source -> run_conversion() -> three files

Each collection (`mimic_cxr`, `iu_xray`, `chexpert_plus`, `rexgradient`, `padchest_gr`, `table`)
adds its own options and hands over a `Source`.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.command_line import sigterm_unwinds
from llava.data.conversion.accounting import ConversionReport
from llava.data.conversion.cleaning import join_sections, shown
from llava.data.conversion.output import Conversation, check_output, write_splits
from llava.data.conversion.per_image import convert
from llava.data.conversion.per_study import convert_studies
from llava.data.conversion.study import MISSING, PER_STUDY, Locate, Study
from llava.images.loading import resolve_image_path

SECTIONS = {
    "findings": ("findings",),
    "impression": ("impression",),
    "both": ("findings", "impression"),
}
"""--section -> the parts of a report that are the answer."""


@dataclass(frozen=True)
class Source:
    """A collection, ready to be converted.

    studies: read lazily. locate: listed image -> path under the image root.
    per_study: a sample for each of "all" images, for the "first" that exists, or one of
    "all-views"; then `prior` adds the previous study.
    """

    studies: Iterable[Study]
    locate: Locate
    per_study: str = "all"
    prior: bool = False

    def convert(self, report: ConversionReport) -> dict[str, list[Conversation]]:
        if self.per_study == "all-views":
            return convert_studies(self.studies, self.locate, report, self.prior)
        if self.prior:
            raise ValueError("--prior shows the previous study: it needs --per-study all-views")
        return convert(self.studies, self.locate, report, self.per_study)


def add_options(parser: argparse.ArgumentParser, image_root: str) -> None:
    """Add the options that every conversion has. image_root: help text, what the folder holds."""
    parser.add_argument("--image-root", type=Path, required=True, help=image_root)
    parser.add_argument("--output", type=Path, required=True, help="folder for the three files")
    add_overwrite(parser, "replace the conversion that is in --output")
    parser.add_argument(
        "--no-image-check",
        dest="image_check",
        action="store_false",
        help="do not check that each image file exists",
    )


def add_overwrite(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--overwrite", action="store_true", help=text)


def add_section(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--section",
        choices=SECTIONS,
        default="findings",
        help="the part of the report that is the answer (default: findings)",
    )


def add_per_study(parser: argparse.ArgumentParser, choices: Sequence[str] = PER_STUDY) -> None:
    """Add --per-study; and --prior where whole studies are among the choices."""
    whole = "; all-views: one sample per study, with an <image> for each of its views"
    parser.add_argument(
        "--per-study",
        choices=choices,
        default="all",
        help="a sample for each image of a study (all, the default), or for the first that exists"
        + (whole if "all-views" in choices else ""),
    )
    if "all-views" in choices:
        parser.add_argument(
            "--prior",
            action="store_true",
            help="with all-views: also show the subject's previous study, a frontal view and its "
            "report",
        )


def chosen_report(text_of: Callable[[str], str], section: str) -> tuple[str, str | None]:
    """Return (report, why there is none) of the parts that `section` names.

    text_of: name of a part -> its cleaned text, "" where it says nothing.
    """
    parts = SECTIONS[section]
    report = join_sections(map(text_of, parts))
    return report, None if report else f"no text under {' or '.join(parts)}"


def patients_apart(studies: Iterable[Study]) -> Iterator[Study]:
    """Yield the same studies. Raises ValueError when a subject that they name is in two splits."""
    splits: dict[str, str] = {}
    for study in studies:
        known = splits.setdefault(study.subject, study.split) if study.subject else study.split
        if known != study.split:
            raise ValueError(
                f"entry {shown(study.id)}: patient {shown(study.subject)} is in {known!r} and in "
                f"{study.split!r}; what is tested would have been trained on"
            )
        yield study


def run_conversion(arguments: argparse.Namespace, source: Callable[[], Source]) -> int:
    """Convert and write; return the exit status. source: opens the files, after the checks."""

    def command() -> None:
        check_output(arguments.output, arguments.overwrite)
        opened, report = source(), ConversionReport()
        conversations = opened.convert(report)
        print(report.table())
        _check_result(report)
        paths = write_splits(conversations, arguments.output, arguments.overwrite)
        for path, samples in zip(paths, conversations.values(), strict=True):
            print(f"wrote {path}: {len(samples)} samples")

    return run_command(command)


def locator(
    root: Path, check: bool, forms: Callable[[str], Sequence[str]] = lambda image: [image]
) -> Locate:
    """Return a lookup: listed image -> the first of its `forms` that is a file under `root`.

    forms: the paths that a listed image may have; only itself by default. The lookup gives None
    where there is no such file. Without `check` the first form is taken unseen.
    """
    if check and not root.is_dir():
        raise FileNotFoundError(f"--image-root {shown(str(root))} is not a folder")

    def locate(image: str, entry: str) -> str | None:
        for form in forms(image):
            path = resolve_image_path(root, form, entry)
            if "\\" in form:
                raise ValueError(
                    f"image {shown(form)} of entry {shown(entry)} has a backslash; write '/'"
                )
            if not check or os.path.isfile(path):
                return form
        return None

    return locate


def run_command(command: Callable[[], None]) -> int:
    """Run a command line's work; what a user can get wrong becomes one line and exit status 2."""
    try:
        with sigterm_unwinds():
            command()
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _check_result(report: ConversionReport) -> None:
    total = report.total()
    missing = total.skipped_images[MISSING]
    if not total.samples and missing:
        raise ValueError(
            f"not one of the {missing} image files looked for exists; "
            "point --image-root to the folder that the listed paths start from"
        )
    if not total.samples:
        raise ValueError("not one entry could be converted; the reasons are counted above")
