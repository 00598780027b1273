"""Packed batches against their samples alone."""

import pytest
import torch
from tiny_language import build, loss_and_gradients, training_batch
from torch.utils._python_dispatch import TorchDispatchMode

from llava.constants import IGNORE_INDEX
from llava.diffusion.masking import Noise
from llava.model.language_model import modeling_qwen
from llava.model.layers.packing import pack

VOCABULARY = 97
"""A size that no other dimension has: what ends in it are logits."""
RAGGED = [(7, 5), (4, 6), (9, 0), (4, 6)]
EVEN = [(7, 5), (7, 5)]
NO_PROMPT = [(0, 5), (3, 4)]
LONG = [(5, 12), (9, 11)]
"""Answers longer than their prefixes."""


@pytest.fixture
def model():
    return build("prefix", vocabulary=VOCABULARY, spread=0.2).train()


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("lengths", [RAGGED, EVEN, NO_PROMPT, LONG])
def test_a_packed_batch_gives_the_loss_and_gradients_of_its_samples_alone(model, lengths, multiple):
    inputs = training_batch(lengths, views=2)
    expected, gradients = [], {}
    for row in range(len(lengths)):
        alone = {name: inputs[name][row : row + 1] for name in ("input_ids", "labels")}
        alone = {name: value[:, : max(1, sum(lengths[row]))] for name, value in alone.items()}
        width = alone["labels"].shape[1]
        alone["noise"] = [
            Noise(view.p_mask[row : row + 1], view.masked_indices[row : row + 1, :width])
            for view in inputs["noise"]
        ]
        loss, own = loss_and_gradients(model, **alone)
        expected.append(loss)
        for name, gradient in own.items():
            gradients[name] = gradients.get(name, 0) + gradient / len(lengths)
    model.pad_to_multiple_of = multiple
    loss, together = loss_and_gradients(model, **inputs)
    torch.testing.assert_close(loss, torch.cat(expected), rtol=1e-5, atol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(together[name], gradient, rtol=1e-4, atol=1e-6)


def test_filler_rows_change_nothing(model):
    inputs = training_batch(RAGGED)
    loss, gradients = loss_and_gradients(model, **inputs)
    model.pad_to_multiple_of = 64
    rounded_loss, rounded = loss_and_gradients(model, **inputs)
    torch.testing.assert_close(rounded_loss, loss, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(rounded[name], gradient, rtol=1e-4, atol=1e-6)


def test_only_real_tokens_reach_the_layers_and_only_answers_the_last_mlp(model):
    rows = []
    for layer in model.model.layers:
        layer.mlp.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    model(**training_batch(EVEN, views=2))
    assert rows == [2 * (7 + 4 * 5), 2 * (7 + 4 * 5), 2 * 4 * 5]
    rows.clear()
    model(**training_batch(RAGGED))
    real = 7 + 4 + 9 + 4 + 2 * (5 + 6 + 1 + 6)  # the sample without an answer runs one position
    assert rows == [real, real, 2 * (5 + 6 + 1 + 6)]


def test_unpacking_undoes_packing_and_gives_zeros_on_padding():
    prefix, answers = torch.randn(3, 4, 2), torch.randn(2, 3, 5, 2)
    lengths = torch.tensor([4, 2, 0]), torch.tensor([5, 1, 3])
    packed = pack(prefix, answers, *lengths, multiple=16)
    assert packed.hidden.shape == (32, 2)  # 6 + 2 * 9 rows, rounded up
    real = torch.arange(5) < lengths[1][:, None]
    assert torch.equal(packed.unpack_answers(packed.hidden), answers * real[None, :, :, None])
    real = torch.arange(4) < lengths[0][:, None]
    assert torch.equal(packed.unpack_prefix(packed.hidden), prefix * real[..., None])
    assert packed.positions[-18:].tolist() == [4, 5, 6, 7, 8] * 2 + [2, 2] + [0, 1, 2] * 2


class VocabularyRows(TorchDispatchMode):
    """The most rows of a tensor as wide as the vocabulary that any operation makes."""

    most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for each in output if isinstance(output, tuple | list) else [output]:
            if isinstance(each, torch.Tensor) and each.dim() and each.shape[-1] == VOCABULARY:
                self.most = max(self.most, each.numel() // VOCABULARY)
        return output


@pytest.mark.parametrize("mode", ["full", "prefix"])
def test_no_tensor_holds_a_vocabulary_for_rows_nobody_reads(model, mode):
    model.config.attention_mode = mode
    inputs = training_batch(RAGGED)
    with VocabularyRows() as seen:
        model(**inputs).loss.backward()
    targets = int((inputs["labels"] != IGNORE_INDEX).sum())
    assert 0 < seen.most <= max(targets, model.config.hidden_size)  # the head's own transpose


def test_gradient_checkpointing_keeps_loss_and_gradients_with_several_views(model, monkeypatch):
    model.train()
    inputs = training_batch(RAGGED, views=2)
    loss, gradients = loss_and_gradients(model, **inputs)
    model.activation_checkpointing_enable()
    layers, original = [], modeling_qwen.checkpoint

    def recording(function, layer, *arguments, **settings):
        layers.append(layer)
        return original(function, layer, *arguments, **settings)

    monkeypatch.setattr(modeling_qwen, "checkpoint", recording)
    again, recomputed = loss_and_gradients(model, **inputs)
    assert layers == list(model.model.layers)
    torch.testing.assert_close(again, loss)
    for name, gradient in gradients.items():
        torch.testing.assert_close(recomputed[name], gradient)


@torch.no_grad()
def test_a_compiled_layer_is_one_graph_and_scores_the_same(model):
    del model.model.layers[1:]  # tracing is what takes the time
    inputs = training_batch(RAGGED)
    expected = model(**inputs).sample_loss
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    model.compile_layers(backend)
    torch.testing.assert_close(model(**inputs).sample_loss, expected, rtol=1e-5, atol=1e-6)
    assert len(graphs) == 1


def test_full_mode_rounded_up_scores_the_same(model):
    model.config.attention_mode = "full"
    inputs = training_batch(RAGGED)
    loss, gradients = loss_and_gradients(model, **inputs)
    model.pad_to_multiple_of = 32
    rounded_loss, rounded = loss_and_gradients(model, **inputs)
    torch.testing.assert_close(rounded_loss, loss, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(rounded[name], gradient, rtol=1e-4, atol=1e-6)
