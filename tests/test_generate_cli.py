"""`python -m llava.generate`: one report of one image, errors in one line."""

import subprocess
import sys

import pytest
from PIL import Image

from llava.constants import ASSISTANT_PROMPT
from llava.diffusion.sampler import SamplingConfig
from llava.generate import main
from llava.writing.writer import Report, ReportWriter, Request

FAST = ("--device", "cpu", "--gen-length", "8", "--steps", "2")


@pytest.fixture
def image(tiny_dataset):
    return tiny_dataset.image_folder / "p10" / "image0.png"


def command(checkpoint, image, *more):
    return ["--model-path", str(checkpoint), "--image", str(image), *FAST, *more]


def error_line(capsys):
    """The last line on stderr, with nothing on stdout."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err.rstrip("\n").split("\n")[-1]


@pytest.mark.parametrize(
    "name",
    ["COVID-00003a.jpg", "00000001_000.png", "tb0005.png", "rsna.dcm", "monochrome1.dcm"],
)
def test_the_report_of_a_jpeg_png_or_dicom_file_is_printed(shared, tiny_checkpoint, capsys, name):
    file = shared / "data" / "radiographs" / name
    assert main(command(tiny_checkpoint, file)) == 0
    printed = capsys.readouterr().out
    writer = ReportWriter.from_pretrained(tiny_checkpoint, device="cpu")
    request = Request((file,), ASSISTANT_PROMPT)
    report = writer.write([request], SamplingConfig(gen_length=8, steps=2))[0]
    assert printed == report.text + "\n"


def test_a_template_is_filled_in(tiny_checkpoint, image, capsys):
    more = ("--gen-length", "30", "--template", "The heart is [3]. No effusion.")
    assert main(command(tiny_checkpoint, image, *more)) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("The heart is ")
    assert printed.endswith(". No effusion.\n")


def test_a_template_that_does_not_fit_is_named(tiny_checkpoint, image, capsys):
    assert main(command(tiny_checkpoint, image, "--template", "The heart is [30].")) == 2
    assert "do not fit gen_length=8" in error_line(capsys)


@pytest.fixture
def asked(monkeypatch):
    """What the command line asks of the writer, which answers with a fixed report."""
    seen = []

    def write(self, requests, sampling):
        seen.append((requests, sampling))
        return [Report("Clear lungs.", True, [1], [1.0], [0], 1)]

    monkeypatch.setattr(ReportWriter, "write", write)
    return seen


def test_context_is_asked_in_its_order_and_only_what_was_given(
    asked, tiny_checkpoint, image, capsys
):
    context = ("--technique", "AP", "--indication", "Chest pain", "--history", " ")
    assert main(command(tiny_checkpoint, image, *context)) == 0
    assert capsys.readouterr().out == "Clear lungs.\n"
    ((requests, _),) = asked
    prompt = f"{ASSISTANT_PROMPT} Following clinical context: Indication: Chest pain Technique: AP"
    assert requests == [Request((image,), prompt)]


def test_decoding_settings_reach_the_sampler(asked, tiny_checkpoint, image):
    more = (
        *("--block-length", "4", "--temperature", "0.5", "--cfg-scale", "1.5", "--seed", "7"),
        *("--remasking", "random", "--schedule", "cosine", "--threshold", "0.9"),
        *("--cache", "none", "--stop", "IMPRESSION", "--stop", "\n\n"),
    )
    assert main(command(tiny_checkpoint, image, *more)) == 0
    assert asked[0][1] == SamplingConfig(
        gen_length=8,
        block_length=4,
        steps=2,
        temperature=0.5,
        cfg_scale=1.5,
        remasking="random",
        schedule="cosine",
        threshold=0.9,
        cache="none",
        stop=("IMPRESSION", "\n\n"),
        seed=7,
    )


def test_the_defaults_are_those_of_the_sampler(asked, tiny_checkpoint, image):
    arguments = ["--model-path", str(tiny_checkpoint), "--image", str(image), "--device", "cpu"]
    assert main(arguments) == 0
    assert asked[0][1] == SamplingConfig()


def test_the_help_and_a_missing_image_import_nothing_heavy():
    script = (
        "import sys\n"
        "from llava.generate import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "status = main(['--model-path', 'x', '--image', 'gone.png'])\n"
        "heavy = {'torch', 'transformers', 'numpy', 'PIL', 'pydicom'} & set(sys.modules)\n"
        "print(status, sorted(heavy))\n"
    )
    arguments = [sys.executable, "-c", script]
    result = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert "Write the report of a chest radiograph (JPEG, PNG or DICOM)" in result.stdout
    assert "--indication" in result.stdout
    assert result.stdout.splitlines()[-1] == "2 []"
    assert result.stderr == "error: image 'gone.png' does not exist\n"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--block-length", "3"), "gen_length=8 is not a multiple of block_length=3"),
        (("--steps", "3", "--block-length", "4"), "steps=3 is not a multiple of the 2 blocks"),
        (("--remasking", "lowconf"), "remasking='lowconf' is unknown; choose from low_confidence"),
        (("--threshold", "2"), "threshold=2 is not in (0, 1]"),
        (("--gen-length", "many"), "gen_length='many' is not a positive whole number"),
        (("--seed", "1.5"), "seed=1.5 is not a whole number"),
        (("--stop", ""), "every stop string must be text, and not empty"),
        (("--device", "gpu"), "device='gpu' is unknown; use cpu"),
        (("--dtype", "fp32"), "dtype='fp32' is unknown; use float32"),
        (("--indication", "see <image>"), "the prompt has 2 <image> for 1 images"),
        (("--indication", "word " * 2000), "exceeds the model's 1024; shorten the context"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_2(
    tiny_checkpoint, image, capsys, more, message
):
    assert main(command(tiny_checkpoint, image, *more)) == 2
    line = error_line(capsys)
    assert line.startswith("error: ")
    assert message in line


def test_a_missing_or_damaged_image_is_named(tiny_checkpoint, tmp_path, image, capsys):
    assert main(command(tiny_checkpoint, tmp_path / "gone.png")) == 2
    assert capsys.readouterr().err == f"error: image '{tmp_path}/gone.png' does not exist\n"
    (tmp_path / "cut.png").write_bytes(image.read_bytes()[:200])
    assert main(command(tiny_checkpoint, tmp_path / "cut.png")) == 2
    assert f"image '{tmp_path}/cut.png' cannot be read" in error_line(capsys)
    Image.open(image).save(tmp_path / "other.gif")
    assert main(command(tiny_checkpoint, tmp_path / "other.gif")) == 2
    assert "is not a JPEG, PNG or DICOM file" in error_line(capsys)


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path, image, tiny_backbones, capsys):
    assert main(command(tmp_path, image)) == 2
    assert f"'{tmp_path}' is not a checkpoint folder" in error_line(capsys)
    assert main(command(tiny_backbones.language, image)) == 2
    assert "not a checkpoint of this project" in error_line(capsys)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--block-lenght", "8"), "unrecognized arguments: --block-lenght 8"),
        (("--batch-size", "many"), "argument --batch-size: 'many' is not a whole number of at "),
        (("--batch-size", "0"), "argument --batch-size: '0' is not a whole number of at least 1"),
    ],
)
def test_unknown_and_unreadable_settings_are_named(tiny_checkpoint, image, capsys, more, message):
    with pytest.raises(SystemExit) as stop:
        main(command(tiny_checkpoint, image, *more))
    assert stop.value.code == 2
    assert message in error_line(capsys)


def test_a_call_without_model_or_image_says_what_is_required(capsys):
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    assert "required: --model-path" in error_line(capsys)
