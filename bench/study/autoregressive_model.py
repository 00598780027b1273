"""The autoregressive twin: the same body and projector as the diffusion model's, causal.

    image features -> projector -> spliced into the prompt -> stock, causal Qwen3 -> next token

It is to the diffusion model what a control is to a treatment: the same layers, width, vocabulary,
tower and projector; what differs is that a token sees only what comes before it, and the loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache, Qwen3Config, Qwen3ForCausalLM

from llava.constants import IGNORE_INDEX
from llava.diffusion.loss import token_cross_entropy
from llava.model.language_model.configuration_qwen import Qwen3DiffusionConfig
from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion
from llava.model.llava_arch import Splice, plan_splice, splice_embeds, splice_labels

_NOT_ITS_OWN = (
    *Qwen3DiffusionConfig.__annotations__,
    *("model_type", "architectures", "transformers_version"),
)


def causal_body(model: Qwen3ForMaskedDiffusion) -> Qwen3ForCausalLM:
    """A stock causal Qwen3 of the same shape, with the same weights (a copy)."""
    fields = {k: v for k, v in model.config.to_dict().items() if k not in _NOT_ITS_OWN}
    body = Qwen3ForCausalLM(Qwen3Config(**fields))
    body.load_state_dict(model.state_dict())
    return body


@dataclass(frozen=True)
class Rules:
    """What a row may write. ends: (E,) ids that end it. first: (B, V) bool, what its first token
    may not be; later: (V,) bool, what the others may not be. None: anything."""

    ends: Tensor
    first: Tensor | None = None
    later: Tensor | None = None


class CausalTwin(nn.Module):
    """mm_projector: None for the language model alone (pretraining)."""

    def __init__(self, language: Qwen3ForCausalLM, mm_projector: nn.Module | None = None) -> None:
        super().__init__()
        self.language, self.mm_projector = language, mm_projector

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        image_features: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Mean over samples of the nats per answer token, as the diffusion loss weighs samples."""
        nats, row = self.token_nats(input_ids, attention_mask, labels, image_features)
        length = torch.bincount(row, minlength=len(input_ids))
        return {"loss": (nats / length[row]).sum() / len(input_ids)}

    def token_nats(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        image_features: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """-log p of every answer token given all before it (M,) fp32, and its row (M,).

        input_ids, attention_mask, labels: (B, T). image_features: (I, N, vision width).
        """
        embeds, splice = self.embed(input_ids, attention_mask, image_features)
        targets = splice_labels(splice, input_ids, labels)[:, 1:]
        # No padding mask: padding is on the right, where nothing that counts can see it.
        hidden = self.language.model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        is_target = targets != IGNORE_INDEX
        logits = self.language.lm_head(hidden[:, :-1][is_target])
        return token_cross_entropy(logits, targets[is_target]), is_target.nonzero()[:, 0]

    def embed(
        self, input_ids: Tensor, attention_mask: Tensor, image_features: Tensor | None
    ) -> tuple[Tensor, Splice]:
        """Embeddings (B, L, D), right-padded, the images in place; and where everything went."""
        embed_tokens = self.language.model.embed_tokens
        if image_features is None:
            tokens = embed_tokens.weight.new_zeros(0, 1, embed_tokens.embedding_dim)
        else:
            tokens = self.mm_projector(image_features)  # (I, N, D)
        counts = torch.full((len(tokens),), tokens.shape[1], device=input_ids.device)
        splice = plan_splice(input_ids, counts, attention_mask)
        return splice_embeds(splice, input_ids, tokens.flatten(0, 1), embed_tokens), splice

    @torch.no_grad()
    def write(
        self, embeds: Tensor, attention_mask: Tensor, limit: int, rules: Rules
    ) -> list[list[int]]:
        """Greedy continuation of each row, its end included; at most `limit` tokens.

        embeds: (B, L, D) with attention_mask (B, L), right-padded. A token is one pass over the
        row's keys and values, the first comes of reading the prompt; a row that has ended leaves
        the batch, as a finished report does in diffusion decoding.
        """
        written: list[list[int]] = [[] for _ in embeds]
        state = _Rows.start(embeds, attention_mask, DynamicCache(config=self.language.config))
        forbidden = rules.first
        for _ in range(limit):
            logits = self._next_logits(state)
            if forbidden is not None:
                logits = logits.masked_fill(forbidden, -torch.inf)
            chosen = logits.argmax(dim=-1)  # (B,)
            for row, token in zip(state.row.tolist(), chosen.tolist(), strict=True):
                written[row].append(token)
            going = ~torch.isin(chosen, rules.ends)
            if not going.any():
                break
            if not going.all():
                state.keep(going.nonzero()[:, 0])
            state.go_on(self.language.model.embed_tokens(chosen[going][:, None]))
            forbidden = rules.later
        return written

    def _next_logits(self, state: _Rows) -> Tensor:
        hidden = self.language.model(
            inputs_embeds=state.embeds,
            attention_mask=state.mask,
            position_ids=state.positions,
            past_key_values=state.cache,
            use_cache=True,
        ).last_hidden_state
        return self.language.lm_head(hidden[:, -1])


@dataclass
class _Rows:
    """The rows that are still being written. row: (B,) which of the batch each is. embeds: (B, L,
    D), what the next pass reads. mask: (B, all so far). positions: (B, L), of the embeds."""

    row: Tensor
    embeds: Tensor
    mask: Tensor
    positions: Tensor
    cache: DynamicCache

    @classmethod
    def start(cls, embeds: Tensor, mask: Tensor, cache: DynamicCache) -> _Rows:
        embeds, mask = _left_padded(embeds, mask)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        return cls(torch.arange(len(embeds), device=embeds.device), embeds, mask, positions, cache)

    def keep(self, kept: Tensor) -> None:
        self.cache.batch_select_indices(kept)
        self.row, self.mask, self.positions = self.row[kept], self.mask[kept], self.positions[kept]

    def go_on(self, embeds: Tensor) -> None:
        """Read these (B, 1, D) next, after what has been read."""
        self.embeds, self.positions = embeds, self.positions[:, -1:] + 1
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(embeds), 1)], dim=1)


def _left_padded(embeds: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """A right-padded batch with its padding moved to the left, so that all rows end together."""
    length = mask.shape[1]
    shift = length - mask.sum(dim=1, keepdim=True)
    index = (torch.arange(length, device=mask.device) - shift) % length  # (B, L)
    return embeds.gather(1, index[..., None].expand_as(embeds)), mask.gather(1, index)
