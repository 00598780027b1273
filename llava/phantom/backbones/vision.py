"""The stand-in for SigLIP2: image half and text half, trained against each other."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    PreTrainedTokenizerBase,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
    set_seed,
)

from llava.data.samples.entry import Entry
from llava.images.loading import load_image, process_images
from llava.phantom.backbones.fitting import fit
from llava.phantom.backbones.language import (
    FUNCTION_WORDS,
    sentences,
    tokenizer_texts,
    train_tokenizer,
    words_of,
)

IMAGE_SIZE, PATCH_SIZE = 112, 14
BATCH_SIZE = 32
KEPT_TOKENS = 8
STYLE_WORDS = (
    FUNCTION_WORDS
    | {"present", "obtained", "view", "single", "chest", "wall"}
    | {"focal", "linear", "plate-like", "round"}
)
"""Words by which phrasings of one statement may differ."""


class SentenceContrast(nn.Module):
    """SigLIP's sigmoid loss (arXiv 2303.15343, eq. 1) where a sentence may fit several images.

    The last layer and the pooling head see KEPT_TOKENS of the penultimate layer's tokens, drawn
    anew for every image, so that each token carries the whole image: the language model reads that
    layer, and need not learn first which of its tokens to look at.
    """

    def __init__(self, siglip: SiglipModel) -> None:
        super().__init__()
        self.siglip = siglip

    def forward(self, pixel_values: Tensor, input_ids: Tensor, fits: Tensor) -> dict[str, Tensor]:
        """pixel_values: (B, 3, H, W). input_ids: (S, length). fits: (B, S) bool."""
        image = F.normalize(self._pooled(pixel_values), dim=-1)
        text = self.siglip.text_model(input_ids=input_ids).pooler_output
        logits = image @ F.normalize(text, dim=-1).T * self.siglip.logit_scale.exp()
        logits = (logits + self.siglip.logit_bias).float()
        loss = F.binary_cross_entropy_with_logits(logits, fits.float(), reduction="sum")
        return {"loss": loss / len(pixel_values)}

    def _pooled(self, pixel_values: Tensor) -> Tensor:
        """The image's embedding from some of its tokens. (B, 3, H, W) -> (B, D)"""
        vision = self.siglip.vision_model
        hidden = embedded(vision, pixel_values)
        for layer in vision.encoder.layers[:-1]:
            hidden = layer(hidden, None)
        kept = torch.rand(hidden.shape[:2]).argsort(dim=1)[:, :KEPT_TOKENS]  # (B, KEPT_TOKENS)
        row = torch.arange(len(hidden))[:, None]
        hidden = vision.encoder.layers[-1](hidden[row, kept], None)
        return vision.head(vision.post_layernorm(hidden))


def embedded(vision: nn.Module, pixel_values: Tensor) -> Tensor:
    """What the tower's `embeddings` gives, (B, 3, H, W) -> (B, N, D).

    Patches do not overlap: their convolution is one product, which a CPU trains faster.
    """
    own = vision.embeddings
    weight, bias = own.patch_embedding.weight, own.patch_embedding.bias
    side = weight.shape[-1]
    patches = pixel_values.unfold(2, side, side).unfold(3, side, side)  # (B, 3, h, w, side, side)
    patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    return F.linear(patches, weight.flatten(1), bias) + own.position_embedding(own.position_ids)


def new_vision_model(
    vocabulary: int,
    width: int = 128,
    layers: int = 6,
    image_size: int = IMAGE_SIZE,
    patch_size: int = PATCH_SIZE,
    sentence_length: int = 24,
) -> SiglipModel:
    """A small SigLIP of both halves, in the class the published checkpoint is loaded with.

    Its text half has one layer: it tells a few hundred sentences apart, and is not used again.
    """
    shape = {"hidden_size": width, "num_attention_heads": max(1, width // 32)}
    text = SiglipTextConfig(
        **shape,
        intermediate_size=2 * width,
        num_hidden_layers=1,
        vocab_size=vocabulary,
        max_position_embeddings=sentence_length,
        projection_size=width,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    vision = SiglipVisionConfig(
        **shape,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        image_size=image_size,
        patch_size=patch_size,
    )
    model = SiglipModel(SiglipConfig(text_config=text.to_dict(), vision_config=vision.to_dict()))
    model.logit_scale.data.fill_(math.log(10))  # SigLIP sec. 3: t' = log 10; its bias, -10, is for
    model.logit_bias.data.fill_(-4.0)  # one pair in 32,768, here one in about 30 fits
    return model


def new_image_processor(image_size: int = IMAGE_SIZE) -> SiglipImageProcessorPil:
    return SiglipImageProcessorPil(
        size={"height": image_size, "width": image_size},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        resample=3,
    )


def pretrain_vision(
    entries: Sequence[Entry],
    output: Path,
    epochs: float,
    seed: int,
    bf16: bool = False,
    width: int = 128,
    layers: int = 6,
    image_size: int = IMAGE_SIZE,
    patch_size: int = PATCH_SIZE,
    batch_size: int = BATCH_SIZE,
) -> None:
    """Train a SigLIP on images and the sentences of their reports.

    The learning rates grow with the batch.
    """
    scale = batch_size / BATCH_SIZE
    set_seed(seed)
    processor = new_image_processor(image_size)
    tokenizer = train_tokenizer(tokenizer_texts(entries))
    samples = [_sample(entry, processor) for entry in entries]
    length = longest_sentence(samples, tokenizer)
    model = new_vision_model(len(tokenizer), width, layers, image_size, patch_size, length)
    model.set_attn_implementation("eager")  # so few tokens are fastest written out

    def collate(batch: list[dict[str, Any]]) -> dict[str, Tensor]:
        return contrast_batch(batch, tokenizer, length)

    fit(
        SentenceContrast(model),
        samples,
        collate,
        output,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=1e-3 * scale,
        muon_lr=2e-3 * scale,
        seed=seed,
        bf16=bf16,
    )
    model.save_pretrained(str(output))
    processor.save_pretrained(str(output))
    tokenizer.save_pretrained(str(output))


def _sample(entry: Entry, processor: SiglipImageProcessorPil) -> dict[str, Any]:
    picture = load_image(entry.images[0], entry.image_folder, entry.id)
    return {
        "pixels": process_images([picture], processor)[0].half(),
        "sentences": sentences(entry.messages[-1]["value"]),
    }


@cache
def content(sentence: str) -> frozenset[str]:
    """The words that a sentence shares with its paraphrases."""
    return frozenset(words_of(sentence)) - STYLE_WORDS


def longest_sentence(samples: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of the longest sentence, to which SigLIP pads all of them."""
    return max(len(ids) for ids in tokenizer(sentences_of(samples))["input_ids"])


def sentences_of(samples: Sequence[dict[str, Any]]) -> list[str]:
    """Each sentence of the samples once, in the order of the alphabet."""
    return sorted({sentence for sample in samples for sentence in sample["sentences"]})


def contrast_batch(
    samples: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, length: int
) -> dict[str, Tensor]:
    """Images against one sentence of each content in the batch, padded to `length`.

    A sentence fits the images whose report has its content: were only the words as written to
    count, a paraphrase of a true statement would be taught to be false.
    """
    written = sentences_of(samples)
    contents = {sentence: content(sentence) for sentence in written}
    by_content = {contents[sentence]: sentence for sentence in reversed(written)}
    ids = tokenizer(
        list(by_content.values()),
        padding="max_length",
        max_length=length,
        return_tensors="pt",
    )["input_ids"]
    said = [{contents[sentence] for sentence in sample["sentences"]} for sample in samples]
    fits = torch.tensor([[each in own for each in by_content] for own in said])
    pixels = torch.stack([sample["pixels"] for sample in samples]).float()
    return {"pixel_values": pixels, "input_ids": ids, "fits": fits}
