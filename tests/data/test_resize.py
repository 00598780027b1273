"""The smaller copy of a dataset: the same pixels for the model, resumed, verified, whole."""

import json
import os

import numpy as np
import pytest
import torch
from made_up_entries import entry, save
from PIL import Image

from llava.data import resize
from llava.data.resize import Target, main, resize_dataset, target_of
from llava.data.samples.reading import load_entries
from llava.images.loading import load_image, load_image_processor, process_images


@pytest.fixture
def originals(tmp_path):
    """A grey JPEG, a colour PNG and a 16-bit PNG of different shapes, and their dataset."""
    folder = tmp_path / "originals"
    rng = np.random.default_rng(0)
    (folder / "p10").mkdir(parents=True)
    Image.fromarray(rng.integers(0, 256, (90, 70), dtype=np.uint8)).save(folder / "p10/a.jpg")
    Image.fromarray(rng.integers(0, 256, (40, 80, 3), dtype=np.uint8)).save(folder / "b.png")
    Image.fromarray(rng.integers(0, 4096, (64, 64), dtype=np.uint16)).save(folder / "c.png")
    content = [
        entry(id="1", image="p10/a.jpg", split_hint="kept"),
        entry(id="2", image=["b.png", "c.png"], question="<image> <image>"),
        entry(id="3", image=[], question="No image."),
    ]
    return folder, save(tmp_path / "train.json", content)


def flags(originals, tmp_path, tiny_backbones):
    folder, path = originals
    named = ("--image-folder", str(folder), "--output", str(tmp_path / "copy"))
    return [str(path), *named, "--processor", str(tiny_backbones.vision)]


def test_the_model_sees_the_same_pixels(originals, tmp_path, tiny_backbones, capsys):
    assert main(flags(originals, tmp_path, tiny_backbones)) == 0
    assert capsys.readouterr().out.startswith("3 images made, 0 kept, 0 failed")
    folder, path = originals
    processor = load_image_processor(tiny_backbones.vision)
    before, after = load_entries(path, folder), load_entries(tmp_path / "copy/train.json", tmp_path)
    assert [e.images for e in after] == [("p10/a.jpg.png",), ("b.png.png", "c.png.png"), ()]
    for old, new in zip(before, after, strict=True):
        assert (old.id, old.messages) == (new.id, new.messages)
        for one, other in zip(old.images, new.images, strict=True):
            pictures = [load_image(one, folder)], [load_image(other, tmp_path / "copy")]
            pixels = [process_images(list(each), processor) for each in pictures]
            assert torch.equal(*pixels)
    assert Image.open(tmp_path / "copy/p10/a.jpg.png").mode == "L"
    assert json.loads((tmp_path / "copy/train.json").read_text())[0]["split_hint"] == "kept"


def test_with_longest_the_shape_is_kept_and_nothing_enlarged(originals, tmp_path, tiny_backbones):
    assert main([*flags(originals, tmp_path, tiny_backbones), "--longest", "72"]) == 0
    sizes = {p.name: Image.open(p).size for p in (tmp_path / "copy").rglob("*.png")}
    assert sizes == {"a.jpg.png": (56, 72), "b.png.png": (72, 36), "c.png.png": (64, 64)}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_copy_is_continued_and_what_is_damaged_or_old_is_made_again(
    originals, tmp_path, workers
):
    folder, path = originals
    copy, target = tmp_path / "copy", Target(32, 32, 3)
    assert resize_dataset([path], folder, copy, target, workers).made == 3
    (copy / "b.png.png").unlink()
    whole = (copy / "c.png.png").read_bytes()
    stamp = (folder / "c.png").stat().st_mtime_ns
    (copy / "c.png.png").write_bytes(whole[: len(whole) // 2])
    os.utime(copy / "c.png.png", ns=(stamp, stamp))
    outcome = resize_dataset([path], folder, copy, target, workers)
    assert (outcome.made, outcome.kept) == (2, 1)
    assert (copy / "c.png.png").read_bytes() == whole
    os.utime(folder / "p10/a.jpg", ns=(1, 1))
    assert resize_dataset([path], folder, copy, target).made == 1
    assert resize_dataset([path], folder, copy, target).kept == 3


def test_a_broken_image_leaves_no_dataset_and_is_named(originals, tmp_path, tiny_backbones, capsys):
    folder, _ = originals
    (folder / "b.png").write_bytes(b"no picture")
    (folder / "c.png").unlink()
    assert main(flags(originals, tmp_path, tiny_backbones)) == 1
    err = capsys.readouterr().err
    assert "b.png' is not a JPEG, PNG or DICOM file" in err
    assert "c.png' does not exist" in err
    assert "JSON files were not written" in err
    assert sorted(p.name for p in (tmp_path / "copy").rglob("*.*")) == ["a.jpg.png", "resize.json"]


def test_an_interruption_leaves_no_half_image(originals, tmp_path, monkeypatch):
    folder, path = originals

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(resize.os, "utime", interrupted)
    with pytest.raises(KeyboardInterrupt):
        resize_dataset([path], folder, tmp_path / "copy", Target(32, 32, 3))
    assert [p.name for p in (tmp_path / "copy").rglob("*.*")] == ["resize.json"]


def test_what_cannot_work_is_refused(originals, tmp_path, tiny_backbones, capsys):
    folder, path = originals
    copy = tmp_path / "copy"
    resize_dataset([path], folder, copy, Target(32, 32, 3))
    given = flags(originals, tmp_path, tiny_backbones)
    cases = {
        "was made with other settings": [*given, "--longest", "72"],
        "holds something else": [*given, "--output", str(tmp_path)],
        "is a YAML; give the JSON files": ["mix.yaml", *given],
        "two datasets have the same file name": [str(path), *given],
        "'nowhere' is not a folder": [*given, "--image-folder", "nowhere"],
    }
    for message, arguments in cases.items():
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    for flag in ("--workers", "--longest"):
        with pytest.raises(SystemExit):
            main([*given, flag, "0"])
        assert f"{flag}: '0' is not a whole number of at least 1" in capsys.readouterr().err
    save(path, [entry(image="../x.png")])
    assert main(given) == 2
    assert "leaves the image folder" in capsys.readouterr().err


def test_size_and_filter_are_the_processors(tiny_backbones):
    processor = load_image_processor(tiny_backbones.vision)
    target = target_of(tiny_backbones.vision, None)
    assert (target.width, target.height) == (processor.size["width"], processor.size["height"])
    assert target.resample == processor.resample
