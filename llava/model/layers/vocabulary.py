"""The vocabulary in a training step: tokens looked up at the bottom, scored at the top.

When both use one matrix, autograd makes three tensors of its size of that: the gradient of the
scores, that of the look-up, nearly all zeros, and their sum. At 151,936 x 1024 in fp32 each has
622 MB. Here the rows that were looked up are added to the first of them; no second one is made.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class Vocabulary:
    """Both uses of the vocabulary in one step: first `look_up`, once, then `score`.

    masked_embed: (1, D), the mask token, looked up in the same call as the ids: the gradient of
    a look-up is as large as the whole matrix.
    """

    masked_embed: Tensor

    def __init__(self, embed_tokens: nn.Module, lm_head: nn.Module, mask_token_id: int) -> None:
        self.embed_tokens, self.lm_head = embed_tokens, lm_head
        self.mask_token_id = mask_token_id
        self._weight: Tensor | None = None  # for the scores, where both uses go through one node

    def look_up(self, ids: Tensor) -> Tensor:
        """ids (...) -> (..., D)"""
        with_mask = torch.cat([ids.flatten(), ids.new_tensor([self.mask_token_id])])
        if _plainly_tied(self.embed_tokens, self.lm_head):
            padding = self.embed_tokens.padding_idx
            vectors, self._weight = _BothUses.apply(self.embed_tokens.weight, with_mask, padding)
        else:
            vectors = self.embed_tokens(with_mask)
        self.masked_embed = vectors[-1:]
        return vectors[:-1].unflatten(0, ids.shape)

    def score(self, hidden: Tensor) -> Tensor:
        """hidden (..., D) -> logits (..., V)"""
        return self.lm_head(hidden) if self._weight is None else F.linear(hidden, self._weight)


class _BothUses(torch.autograd.Function):
    """weight (V, D), ids (n,) -> weight[ids] (n, D), and the weight itself for the scores.

    As in `nn.Embedding`, looking up the row `padding` gives it no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, ids: Tensor, padding: int | None
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(ids)
        ctx.padding = padding
        return F.embedding(ids, weight), weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, rows: Tensor, whole: Tensor) -> tuple[Tensor, None, None]:
        (ids,) = ctx.saved_tensors
        if ctx.padding is not None:
            rows = rows.masked_fill((ids == ctx.padding).unsqueeze(-1), 0)
        # Summed by token first, as nn.Embedding does: in a fixed order on every device.
        found, place = ids.unique(return_inverse=True)
        summed = torch.ops.aten.embedding_dense_backward(rows, place, len(found), -1, False)
        # In place: `whole` is what a linear layer's backward pass made, and it is not shared.
        return whole.index_add_(0, found, summed.to(whole.dtype)), None, None


def _plainly_tied(embed_tokens: nn.Module, lm_head: nn.Module) -> bool:
    """Whether one trained matrix serves both, and nothing has to happen around the modules.

    Something has to under ZeRO-3, whose hooks fetch the weights, and in an adapter's wrapper.
    """
    return (
        torch.is_grad_enabled()
        and type(embed_tokens) is nn.Embedding
        and type(lm_head) is nn.Linear
        and embed_tokens.weight is lm_head.weight
        and embed_tokens.weight.requires_grad
        and not any(
            module._forward_pre_hooks or module._forward_hooks for module in (embed_tokens, lm_head)
        )
    )
