"""The feature cache: the same training, only of images and towers it was made for."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.data.samples.reading import load_entries
from llava.model.builder import build_from_backbones
from llava.train.feature_cache import TowerReader, open_store
from llava.train.train import main


@pytest.fixture
def data(tiny_dataset, tmp_path):
    folder = shutil.copytree(tiny_dataset.image_folder, tmp_path / "data")
    return load_entries(folder / tiny_dataset.json_path.name, folder)


@pytest.fixture
def reader(tiny_backbones):
    loaded = build_from_backbones(*tiny_backbones)
    loaded.model.requires_grad_(False)
    return TowerReader(loaded, torch.device("cpu"), torch.float32)


def files(folder):
    return sorted(folder.rglob("*.safetensors"))


def test_a_run_from_stored_features_gives_the_weights_of_a_run_from_pixels(
    tmp_path, tiny_backbones, tiny_dataset, monkeypatch
):
    common = [
        *("--model_name_or_path", str(tiny_backbones.language), "--use_cpu", "true"),
        *("--vision_tower", str(tiny_backbones.vision), "--report_to", "none"),
        *("--data_path", str(tiny_dataset.json_path), "--max_steps", "2"),
        *("--image_folder", str(tiny_dataset.image_folder), "--answer_canvas", "24"),
        *("--per_device_train_batch_size", "2", "--attention_mode", "prefix"),
    ]
    cache = ("--feature_cache", str(tmp_path / "cache"))
    assert main([*common, "--output_dir", str(tmp_path / "pixels")]) == 0
    assert main([*common, "--output_dir", str(tmp_path / "stored"), *cache]) == 0
    assert len(files(tmp_path / "cache")) == 7
    pixels, stored = (
        load_file(tmp_path / run / "mm_projector.safetensors") for run in ("pixels", "stored")
    )
    for name, weight in pixels.items():
        torch.testing.assert_close(stored[name], weight, rtol=1e-5, atol=1e-6)


def test_a_second_start_computes_only_what_is_new(reader, data, tmp_path, monkeypatch):
    store = open_store(str(tmp_path / "cache"), reader, data[:5], 0, 1)
    read, original = [], TowerReader.read

    def counting(self, image):
        read.append(image)
        return original(self, image)

    monkeypatch.setattr(TowerReader, "read", counting)
    again = open_store(str(tmp_path / "cache"), reader, data, 0, 1)
    assert again.folder == store.folder
    assert len(read) == 2 + 2, "two to check, two new"
    assert len(files(tmp_path / "cache")) == 7


def test_processes_share_the_work(reader, data, tmp_path):
    for process in (0, 1):
        store = open_store(str(tmp_path / "cache"), reader, data, process, 2)
    assert store.views_of(data[0])["image_features"].shape == (1, 4, 32)
    assert len(files(tmp_path / "cache")) == 7


def test_another_tower_layer_or_precision_has_another_folder(reader, tiny_backbones):
    names = {reader.name()}
    names.add(TowerReader(reader.loaded, reader.device, torch.bfloat16).name())
    other = build_from_backbones(*tiny_backbones, select_layer=-1)
    names.add(TowerReader(other, reader.device, torch.float32).name())
    with torch.no_grad():
        next(reader.loaded.model.vision_tower.parameters()).add_(1e-3)
    names.add(reader.name())
    assert len(names) == 4


def test_an_image_that_changed_is_not_served_from_the_cache(reader, data, tmp_path):
    store = open_store(str(tmp_path / "cache"), reader, data, 0, 1)
    from PIL import Image

    Image.new("RGB", (32, 32)).save(f"{data[0].image_folder}/{data[0].images[0]}")
    with pytest.raises(FileNotFoundError, match="not in the feature cache"):
        store.views_of(data[0])


def test_features_that_are_not_the_towers_are_noticed_at_the_start(reader, data, tmp_path):
    store = open_store(str(tmp_path / "cache"), reader, data, 0, 1)
    for file in files(store.folder):
        state = load_file(file)
        save_file({"views": state["views"] + 1, "size": state["size"]}, file)
    with pytest.raises(ValueError, match="are not the vision tower's features"):
        open_store(str(tmp_path / "cache"), reader, data, 0, 1)


def test_a_damaged_file_is_named(reader, data, tmp_path):
    store = open_store(str(tmp_path / "cache"), reader, data, 0, 1)
    for file in files(store.folder):
        file.write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="are damaged"):
        store.views_of(data[0])


def test_a_trained_tower_refuses_the_cache(tiny_backbones, tiny_dataset, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(
            [
                *("--model_name_or_path", "x", "--vision_tower", "x", "--data_path", "x"),
                *("--mm_tunable_parts", "mm_vision_tower,mm_mlp_adapter"),
                *("--output_dir", str(tmp_path / "run"), "--feature_cache", str(tmp_path)),
            ]
        )
    assert "needs a frozen tower" in capsys.readouterr().err
