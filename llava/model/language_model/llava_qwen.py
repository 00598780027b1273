"""The whole model: SigLIP sees, the projector translates, Qwen3 writes by unmasking."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipVisionEmbeddings

from llava.diffusion.masking import Noise
from llava.diffusion.result import NO_OPTIONS, Decoded, DecodeOptions
from llava.diffusion.sampler import SamplingConfig
from llava.diffusion.scaffold import Scaffold
from llava.images.layout import ImageLayout
from llava.model.decoding.decode import token_sampling
from llava.model.language_model.configuration_qwen import LlavaQwenDiffusionConfig
from llava.model.language_model.denoising import MaskedDiffusionOutput, TrainingBatch
from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion
from llava.model.language_model.report_pass import ReportOutput, Reports, report_pass
from llava.model.llava_arch import (
    Splice,
    arrange_views,
    plan_splice,
    splice_embeds,
    splice_labels,
)
from llava.model.projector import build_projector, pool_tokens
from llava.model.siglip_encoder import SiglipVisionTower


class LlavaQwenForMaskedDiffusion(Qwen3ForMaskedDiffusion):
    """`Qwen3ForMaskedDiffusion` with images: state-dict names are Qwen3's, `vision_tower.*` and
    `mm_projector.*`."""

    config_class = LlavaQwenDiffusionConfig
    _no_split_modules = ["Qwen3DecoderLayer", "SiglipEncoderLayer"]  # noqa: RUF012 (transformers')

    def __init__(self, config: LlavaQwenDiffusionConfig) -> None:
        super().__init__(config)
        if config.vision_config is None:
            raise ValueError("config.vision_config is missing; build through llava.model.builder")
        vision_config = SiglipVisionConfig(**config.vision_config)
        self.vision_tower = SiglipVisionTower(
            select_layer=config.mm_vision_select_layer, config=vision_config
        )
        self.mm_projector = build_projector(
            config.mm_projector_type, vision_config.hidden_size, config.hidden_size
        )

    @property
    def image_layout(self) -> ImageLayout:
        """How a picture becomes views and how many tokens it takes; for readers and the splice."""
        side = -(-self.vision_tower.side // self.config.mm_spatial_pool_stride)
        size = self.vision_tower.config.image_size
        return ImageLayout(size, side, self.config.image_aspect_ratio)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Called by `from_pretrained` for what a checkpoint does not hold: buffers, here."""
        super()._init_weights(module)
        if isinstance(module, SiglipVisionEmbeddings):
            module.position_ids.copy_(torch.arange(module.num_positions).expand(1, -1))

    def forward(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        noise: Noise | Sequence[Noise] | None = None,
        prefix_length: Tensor | None = None,
        images: Tensor | None = None,
        image_sizes: Tensor | None = None,
        image_features: Tensor | None = None,
        reports: Reports | None = None,
    ) -> MaskedDiffusionOutput | ReportOutput:
        """As the language model's, with images spliced in.

        input_ids: (B, T), IMAGE_TOKEN_INDEX once per image. images: (V, 3, H, W), the views of the
        images of the batch row by row, or None. image_sizes: (I, 2), width and height of the
        pictures; only images of several views need it. image_features: (V, N, D), what the tower
        made of the views before, in place of images. labels, attention_mask and noise are in the
        coordinates of input_ids; logits, and prefix_length, in those of the spliced batch.
        """
        if inputs_embeds is None:
            vocabulary = None if labels is None else self.vocabulary()
            look_up = self.model.embed_tokens if vocabulary is None else vocabulary.look_up
            inputs_embeds, splice = self.embed_with_images(
                input_ids, attention_mask, images, image_sizes, image_features, look_up
            )
            attention_mask = splice.attention_mask
            if vocabulary is not None:
                batch = TrainingBatch(
                    inputs_embeds,
                    vocabulary.masked_embed,
                    attention_mask,
                    splice_labels(splice, input_ids, labels),
                    _splice_noise(splice, noise),
                )
                if reports is not None:
                    return report_pass(self, batch, vocabulary.score, reports)
                return self.denoising_loss(batch, vocabulary.score)
        return super().forward(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            labels=labels,
            noise=noise,
            prefix_length=prefix_length,
            reports=reports,
        )

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        images: Tensor | None = None,
        image_sizes: Tensor | None = None,
        options: DecodeOptions = NO_OPTIONS,
        **sampling: Any,
    ) -> Decoded:
        """Decode a report for each prompt; arguments as in `forward`, sampling as there."""
        config = token_sampling(sampling)
        return self.decode_with_images(
            input_ids, attention_mask, images, config, options, image_sizes
        )

    @torch.no_grad()
    def decode_with_images(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        images: Tensor | None,
        config: SamplingConfig,
        options: DecodeOptions = NO_OPTIONS,
        image_sizes: Tensor | None = None,
        scaffold: Scaffold | None = None,
    ) -> Decoded:
        """`generate` with its settings already checked; scaffold as in `decode`."""
        embeds, splice = self.embed_with_images(input_ids, attention_mask, images, image_sizes)
        decoded = self.decode(embeds, splice.attention_mask, config, options, scaffold)
        if images is not None and len(images):
            decoded.counters.tower_calls, decoded.counters.images = 1, len(images)
        return decoded

    def encode_images(self, images: Tensor) -> Tensor:
        """Pixel values (V, 3, H, W) -> image tokens in the language model's width (V, N, D)."""
        return self.project(self.vision_tower(images))

    def project(self, features: Tensor) -> Tensor:
        """What the tower made of views (V, N, vision width) -> image tokens (V, N', D)."""
        tokens = self.mm_projector(features)
        return pool_tokens(tokens, self.config.mm_spatial_pool_stride)

    def embed_with_images(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        images: Tensor | None,
        image_sizes: Tensor | None = None,
        image_features: Tensor | None = None,
        look_up: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Splice]:
        """Embeddings (B, L, D) of a batch with its images in place, and where everything went.

        look_up: ids -> vectors, the model's own embedding when absent.
        """
        if image_features is not None:
            features = self.project(image_features)
        elif images is not None and len(images):
            features = self.encode_images(images)  # (V, N, D)
        else:
            features = self._no_images(input_ids)
        parts = self._put_together(features, image_sizes)
        lengths = [len(part) for part in parts]
        counts = torch.tensor(lengths, dtype=torch.long, device=input_ids.device)
        splice = plan_splice(input_ids, counts, attention_mask)
        tokens = torch.cat(parts) if parts else features.flatten(0, 1)
        look_up = look_up or self.model.embed_tokens
        return splice_embeds(splice, input_ids, tokens, look_up), splice

    def _put_together(self, features: Tensor, image_sizes: Tensor | None) -> Sequence[Tensor]:
        """Views (V, N, D) -> the tokens of each image (n, D). Raises ValueError on a mismatch."""
        layout = self.image_layout
        if not layout.tiled or not len(features):
            return features.unbind()
        if image_sizes is None:
            raise ValueError(
                f"image_aspect_ratio={layout.aspect_ratio!r} needs image_sizes: the width and "
                "height of each picture (llava.images.loading.picture_sizes)"
            )
        tilings = [layout.tiling(*size) for size in image_sizes.tolist()]
        views = sum(1 if tiling is None else 1 + tiling.rows * tiling.columns for tiling in tilings)
        if views != len(features):
            raise ValueError(
                f"pictures of {image_sizes.tolist()} pixels have {views} views, but {len(features)}"
                " were given; make them with the same image_layout"
            )
        newline = torch.tensor([self.config.image_newline_token_id], device=features.device)
        return arrange_views(features, tilings, self.model.embed_tokens(newline))

    def _no_images(self, input_ids: Tensor) -> Tensor:
        """(0, N, D). Of a blank image where several processes run the model together, or train it:
        each has to run every module, or the others wait for it (DDP, ZeRO-3)."""
        size, channels = self.vision_tower.config.image_size, self.vision_tower.config.num_channels
        together = self.training or (dist.is_available() and dist.is_initialized())
        if not together:
            shape = (0, self.image_layout.side**2, self.config.hidden_size)
            return torch.zeros(shape, device=input_ids.device)
        blank = torch.zeros(1, channels, size, size, device=input_ids.device)
        return self.encode_images(blank)[:0]


def _splice_noise(
    splice: Splice, noise: Noise | Sequence[Noise] | None
) -> Noise | list[Noise] | None:
    if noise is None:
        return None
    if not isinstance(noise, Noise):
        return [_splice_noise(splice, view) for view in noise]
    p_mask = noise.p_mask if noise.p_mask.dim() == 1 else splice.spread(noise.p_mask, 1.0)
    masked = splice.spread(noise.masked_indices, False)
    return noise._replace(p_mask=p_mask, masked_indices=masked)
