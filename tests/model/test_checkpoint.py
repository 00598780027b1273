"""A checkpoint folder before its weights are read."""

from llava.model.checkpoint import checkpoint_id


def test_a_checkpoint_is_known_by_the_names_and_bytes_of_its_files(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1234")
    first = checkpoint_id(tmp_path)
    (tmp_path / "training.log").write_text("not part of it")
    assert checkpoint_id(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"1235")
    assert checkpoint_id(tmp_path) != first
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    assert checkpoint_id(tmp_path) != first
