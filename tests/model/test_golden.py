"""Agreement with outputs recorded from independent implementations (tests/golden)."""

import json

import pytest
import torch
from safetensors.torch import load_file

from llava.diffusion.masking import Noise, complement
from llava.diffusion.schedule import get_num_transfer_tokens
from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion

MASK, END = 605, 601


@pytest.fixture(scope="module", params=["tied", "untied"])
def recorded(request, golden):
    folder = golden / f"a2d_qwen3_tiny_{request.param}"
    model = Qwen3ForMaskedDiffusion.from_pretrained(folder, mask_token_id=MASK).eval()
    return (
        model,
        load_file(folder / "golden.safetensors"),
        json.loads((folder / "golden.json").read_text()),
    )


@torch.no_grad()
def test_logits_of_a_ragged_batch_agree(recorded):
    model, tensors, _ = recorded
    mask = tensors["forward.attention_mask"]
    logits = model(input_ids=tensors["forward.input_ids"], attention_mask=mask).logits
    torch.testing.assert_close(
        logits[mask.bool()], tensors["forward.logits"][mask.bool()], atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(
    ("name", "complementary", "weighting"),
    [
        ("loss.single", False, "elbo"),
        ("loss.complementary", True, "elbo"),
        ("loss.complementary_uniform", True, "uniform"),
    ],
)
@torch.no_grad()
def test_losses_under_the_recorded_noise_agree(recorded, name, complementary, weighting):
    model, tensors, _ = recorded
    model.config.complementary, model.config.loss_weighting = complementary, weighting
    noise = Noise(tensors["loss.p_mask"], tensors["loss.masked_indices"])
    output = model(
        input_ids=tensors["loss.input_ids"],
        attention_mask=tensors["loss.attention_mask"],
        labels=tensors["loss.labels"],
        noise=noise,
    )
    torch.testing.assert_close(output.loss, tensors[name][0], rtol=1e-5, atol=0)
    assert output.sample_loss.mean() == output.loss


def test_the_recorded_noise_has_a_row_without_targets_and_a_complement(recorded):
    _, tensors, _ = recorded
    target_mask = tensors["loss.labels"] != -100
    assert not target_mask.any(dim=1).all()
    noise = Noise(tensors["loss.p_mask"], tensors["loss.masked_indices"])
    both = noise.masked_indices ^ complement(noise, target_mask).masked_indices
    assert torch.equal(both, target_mask)


@pytest.mark.parametrize("name", ["dllm_0", "dllm_1", "dllm_2", "dllm_3"])
def test_batched_ragged_block_decoding_gives_the_recorded_tokens(recorded, name):
    model, _, runs = recorded
    if name not in runs:
        pytest.skip(f"{name} is not recorded for this checkpoint")
    run = runs[name]
    width = max(map(len, run["prompts"]))
    ids = torch.full((len(run["prompts"]), width), END)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(run["prompts"]):
        ids[row, : len(prompt)] = torch.tensor(prompt)
        mask[row, : len(prompt)] = 1
    decoded = model.generate(
        ids,
        mask,
        gen_length=run["max_new_tokens"],
        block_length=run["block_length"],
        steps=run["steps"],
        cfg_scale=run["cfg_scale"],
    )
    assert decoded.sequences.tolist() == run["outputs"]
    assert decoded.nfe.tolist() == [run["steps"]] * len(ids)


@pytest.mark.parametrize("name", ["lladav_0", "lladav_1", "lladav_2", "lladav_3"])
def test_decoding_from_embeddings_gives_the_recorded_tokens(recorded, name):
    model, tensors, runs = recorded
    run = runs[name]
    decoded = model.generate_with_embeds(
        tensors["generate_with_embeds.inputs_embeds"],
        gen_length=run["gen_length"],
        block_length=run["block_length"],
        steps=run["steps"],
        cfg_scale=run["cfg_scale"],
    )
    assert decoded.sequences[0].tolist() == run["outputs"]


def test_the_recorded_transfer_schedules_are_reproduced(recorded):
    _, _, runs = recorded
    for entry in runs["get_num_transfer_tokens"]:
        mask_index = torch.arange(400)[None] < entry["masked"]
        table = get_num_transfer_tokens(mask_index, entry["steps"])
        assert table.tolist() == [entry["schedule"]]
