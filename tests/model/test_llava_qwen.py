"""The whole model against its parts put together by hand, in both attention modes."""

import pytest
import torch

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.diffusion.masking import Noise, complement, forward_process_embeds, sample_noise
from llava.model.language_model import denoising
from llava.model.language_model.configuration_qwen import (
    LlavaQwenDiffusionConfig,
    Qwen3DiffusionConfig,
)
from llava.model.language_model.llava_qwen import LlavaQwenForMaskedDiffusion
from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion

IMAGE = IMAGE_TOKEN_INDEX
LANGUAGE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "pad_token_id": 60,
    "eos_token_id": 61,
    "mask_token_id": 62,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


@pytest.fixture(params=["full", "prefix"])
def model(request):
    torch.manual_seed(0)
    config = LlavaQwenDiffusionConfig(
        **LANGUAGE, vision_config=VISION, attention_mode=request.param
    )
    return LlavaQwenForMaskedDiffusion(config).eval()


@pytest.fixture
def language_model(model):
    """The language model alone, with the same weights."""
    config = Qwen3DiffusionConfig(**LANGUAGE, attention_mode=model.config.attention_mode)
    alone = Qwen3ForMaskedDiffusion(config).eval()
    state = model.state_dict()
    alone.load_state_dict({key: state[key] for key in alone.state_dict()})
    return alone


class Batch:
    """Three rows with 1, 0 and 2 images and answers of 4, 6 and 3 tokens, right-padded."""

    prompts = ([5, IMAGE, 6, 7], [8, 9], [IMAGE, 10, IMAGE, 11, 12])
    answers = ([20, 21, 22, 61], [23, 24, 25, 26, 27, 61], [28, 29, 61])
    row_images = ([0], [], [1, 2])

    def __init__(self):
        rows = [[*p, *a] for p, a in zip(self.prompts, self.answers, strict=True)]
        self.ids = torch.tensor([row + [60] * (8 - len(row)) for row in rows])
        self.mask = torch.tensor([[1] * len(row) + [0] * (8 - len(row)) for row in rows])
        self.labels = torch.full_like(self.ids, IGNORE_INDEX)
        for row, (prompt, answer) in enumerate(zip(self.prompts, self.answers, strict=True)):
            start = len(prompt)
            self.labels[row, start : start + len(answer)] = torch.tensor(answer)
        self.images = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(1))
        generator = torch.Generator().manual_seed(2)
        self.noise = sample_noise(self.labels != IGNORE_INDEX, generator=generator)

    def row(self, row):
        """ids, labels, noise and images of one row alone."""
        end = int(self.mask[row].sum())
        noise = Noise(self.noise.p_mask[[row]], self.noise.masked_indices[[row], :end])
        images = self.images[self.row_images[row]] if self.row_images[row] else None
        return self.ids[[row], :end], self.labels[[row], :end], noise, images

    def spliced_by_hand(self, model):
        """Embeddings, mask, labels and noise of the spliced batch, row by row."""
        features = model.mm_projector(model.vision_tower(self.images))
        used, rows = 0, []
        for row in range(3):
            vectors, sources = [], []
            for column in range(int(self.mask[row].sum())):
                if self.ids[row, column] == IMAGE:
                    vectors.append(features[used])
                    sources += [None] * 4
                    used += 1
                else:
                    vectors.append(model.model.embed_tokens(self.ids[row, [column]]))
                    sources.append(column)
            rows.append((torch.cat(vectors), sources))
        total = max(len(sources) for _, sources in rows)
        embeds = torch.zeros(3, total, 32)
        mask = torch.zeros(3, total, dtype=torch.long)
        labels = torch.full((3, total), IGNORE_INDEX)
        masked = torch.zeros(3, total, dtype=torch.bool)
        for row, (vectors, sources) in enumerate(rows):
            embeds[row, : len(sources)], mask[row, : len(sources)] = vectors, 1
            for place, column in enumerate(sources):
                if column is not None:
                    labels[row, place] = self.labels[row, column]
                    masked[row, place] = self.noise.masked_indices[row, column]
        return embeds, mask, labels, Noise(self.noise.p_mask, masked)


@pytest.fixture
def batch():
    return Batch()


@torch.no_grad()
def test_the_loss_equals_that_of_parts_put_together_by_hand(model, language_model, batch):
    embeds, mask, labels, noise = batch.spliced_by_hand(model)
    expected = language_model(inputs_embeds=embeds, attention_mask=mask, labels=labels, noise=noise)
    output = model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        labels=batch.labels,
        noise=batch.noise,
        images=batch.images,
    )
    torch.testing.assert_close(output.sample_loss, expected.sample_loss, rtol=1e-5, atol=1e-6)
    assert output.loss == output.sample_loss.mean() > 0


@torch.no_grad()
def test_logits_are_those_of_the_spliced_batch(model, language_model, batch):
    embeds, mask, _, _ = batch.spliced_by_hand(model)
    expected = language_model(inputs_embeds=embeds, attention_mask=mask).logits
    logits = model(input_ids=batch.ids, attention_mask=batch.mask, images=batch.images).logits
    assert logits.shape == (3, 14, 64)
    torch.testing.assert_close(logits[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=0)


def prompts_of(batch):
    width = max(map(len, batch.prompts))
    ids = torch.tensor([p + [60] * (width - len(p)) for p in batch.prompts])
    mask = torch.tensor([[1] * len(p) + [0] * (width - len(p)) for p in batch.prompts])
    return ids, mask


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"cfg_scale": 0.5, "block_length": 4}])
def test_generation_equals_parts_put_together_by_hand(model, language_model, batch, settings):
    ids, mask = prompts_of(batch)
    sampling = {"gen_length": 8, "steps": 4, **settings}
    decoded = model.generate(ids, mask, images=batch.images, **sampling)
    features = iter(model.mm_projector(model.vision_tower(batch.images)))
    for row, prompt in enumerate(batch.prompts):
        embed = model.model.embed_tokens
        parts = [next(features) if t == IMAGE else embed(torch.tensor([t])) for t in prompt]
        alone = language_model.generate_with_embeds(torch.cat(parts)[None], **sampling)
        assert torch.equal(alone.sequences[0], decoded.sequences[row])
        torch.testing.assert_close(alone.confidence[0], decoded.confidence[row])


@torch.no_grad()
def test_a_row_is_the_same_alone_and_among_rows_with_and_without_images(model, batch):
    together = model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        labels=batch.labels,
        noise=batch.noise,
        images=batch.images,
    ).sample_loss
    ids, mask = prompts_of(batch)
    sampling = {"gen_length": 8, "steps": 8}
    decoded = model.generate(ids, mask, images=batch.images, **sampling)
    for row in range(3):
        ids, labels, noise, images = batch.row(row)
        alone = model(input_ids=ids, labels=labels, noise=noise, images=images).sample_loss
        torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-6)
        prompt = torch.tensor([batch.prompts[row]])
        own = model.generate(prompt, images=images, **sampling)
        assert torch.equal(own.sequences[0], decoded.sequences[row])


@torch.no_grad()
def test_the_image_changes_the_rows_that_hold_it_and_no_other(model, batch):
    before = model(input_ids=batch.ids, attention_mask=batch.mask, images=batch.images).logits
    images = batch.images.clone()
    images[2] = -images[2]
    after = model(input_ids=batch.ids, attention_mask=batch.mask, images=images).logits
    changed = (before - after).abs().amax(dim=(1, 2))
    assert torch.equal(changed > 1e-4, torch.tensor([False, False, True]))


@pytest.mark.parametrize("with_images", [True, False])
def test_every_trainable_parameter_gets_a_gradient(model, batch, with_images):
    """Also when no row has an image: a data-parallel wrapper waits for every parameter."""
    model.train()
    if with_images:
        inputs = {"input_ids": batch.ids, "images": batch.images, "labels": batch.labels}
        inputs["attention_mask"] = batch.mask
    else:
        ids, labels, _, _ = batch.row(1)
        inputs = {"input_ids": ids, "labels": labels, "images": None}
    model(**inputs).loss.backward()
    lacking = [name for name, p in model.named_parameters() if p.grad is None]
    assert lacking == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    tower = sum(float(p.grad.abs().sum()) for p in model.vision_tower.parameters())
    assert (tower > 0) == with_images


def test_a_projector_alone_gets_its_gradient_when_no_row_has_an_image(model, batch):
    """Stage 1: everything else is frozen."""
    model.train().requires_grad_(False)
    model.mm_projector.requires_grad_(True)
    ids, labels, _, _ = batch.row(1)
    model(input_ids=ids, labels=labels).loss.backward()
    assert all(p.grad is not None for p in model.mm_projector.parameters())


@torch.no_grad()
@pytest.mark.parametrize("views", [1, 2])
def test_noise_of_the_input_masks_the_same_answer_tokens_after_the_splice(
    model, batch, monkeypatch, views
):
    seen = []

    def spy(embeds, masked_embed, noise):
        seen.append(embeds[noise.masked_indices])
        return forward_process_embeds(embeds, masked_embed, noise)

    monkeypatch.setattr(denoising, "forward_process_embeds", spy)
    target_mask = batch.labels != IGNORE_INDEX
    generator = torch.Generator().manual_seed(5)
    noises = [batch.noise, sample_noise(target_mask, generator=generator)][:views]
    model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        labels=batch.labels,
        noise=noises if views > 1 else batch.noise,
        images=batch.images,
    )
    copies = [copy for noise in noises for copy in (noise, complement(noise, target_mask))]
    assert len(seen) == 2 * views
    for embeds, copy in zip(seen, copies, strict=True):
        hidden_tokens = batch.ids[copy.masked_indices]
        assert len(hidden_tokens) > 0
        assert torch.equal(embeds, model.model.embed_tokens(hidden_tokens))


def test_images_that_do_not_match_the_placeholders_are_refused(model, batch):
    for images in (batch.images[:2], None):
        count = 0 if images is None else 2
        with pytest.raises(ValueError, match=f"3 image placeholders for {count} images"):
            model(input_ids=batch.ids, attention_mask=batch.mask, images=images)


def test_a_config_without_a_tower_is_refused():
    with pytest.raises(ValueError, match="vision_config is missing; build through"):
        LlavaQwenForMaskedDiffusion(LlavaQwenDiffusionConfig(**LANGUAGE))


# --------------------------------------------------------------- real size

QWEN3_06B = {
    "vocab_size": 151936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
}
SO400M_384 = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}


def test_the_published_configurations_give_the_published_size():
    config = LlavaQwenDiffusionConfig(**QWEN3_06B, vision_config=SO400M_384)
    with torch.device("meta"):
        model = LlavaQwenForMaskedDiffusion(config)
    assert all(parameter.is_meta for parameter in model.parameters())
    language = {*model.model.parameters(), *model.lm_head.parameters()}
    assert sum(parameter.numel() for parameter in language) == 596_049_920
    assert model.vision_tower.num_tokens == 729
    assert len(model.vision_tower.layers) == 26
    shapes = [tuple(p.shape) for p in model.mm_projector.parameters()]
    assert shapes == [(1024, 1152), (1024,), (1024, 1024), (1024,)]


@torch.no_grad()
def test_a_loss_and_a_decode_at_real_width_are_finite():
    """2 layers; the tower is narrow, but makes 729 tokens of 384 x 384 pixels."""
    torch.manual_seed(0)
    shape = QWEN3_06B | {"num_hidden_layers": 2}
    vision = SO400M_384 | VISION | {"num_hidden_layers": 1, "image_size": 384}
    ids = {"mask_token_id": 151669, "pad_token_id": 151643, "eos_token_id": [151645, 151643]}
    config = LlavaQwenDiffusionConfig(**shape, **ids, vision_config=vision, attention_mode="prefix")
    model = LlavaQwenForMaskedDiffusion(config).eval()
    input_ids = torch.randint(0, 151000, (1, 60))
    input_ids[0, 10] = IMAGE
    labels = torch.full_like(input_ids, IGNORE_INDEX)
    labels[0, 40:] = input_ids[0, 40:]
    images = torch.randn(1, 3, 384, 384)
    rows = []
    model.lm_head.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    loss = model(input_ids=input_ids, labels=labels, images=images).loss
    assert torch.isfinite(loss)
    assert loss > 0
    assert rows == [20]  # one row of 151,936 logits per answer token, never 788
    decoded = model.generate(input_ids[:, :40], images=images, gen_length=8, steps=2)
    assert decoded.nfe.tolist() == [2]
    assert torch.isfinite(decoded.confidence).all()
