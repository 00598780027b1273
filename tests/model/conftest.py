"""Copies of the tiny checkpoints that a test may change or break."""

import shutil

import pytest


@pytest.fixture
def language(tiny_backbones, tmp_path):
    """A copy of the language model to change."""
    return shutil.copytree(tiny_backbones.language, tmp_path / "language")


@pytest.fixture
def vision(tiny_backbones, tmp_path):
    return shutil.copytree(tiny_backbones.vision, tmp_path / "vision")


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path):
    return shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
