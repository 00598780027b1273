"""The training objective: weighted cross-entropy on masked rows, one value per sample.

Second step of training, after the model has scored the rows that `masking` hid. The rows nobody
masked never reach this module: logits are computed on masked rows only.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

LOSS_WEIGHTINGS = ("elbo", "uniform")


def token_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in fp32 whatever the precision. logits (M, V), targets (M,) -> (M,)."""
    return F.cross_entropy(logits.float(), targets, reduction="none")


def masked_diffusion_loss(
    token_ce: Tensor,
    masked_indices: Tensor,
    p_mask: Tensor,
    answer_length: Tensor,
    weighting: str = "elbo",
    token_weight: Tensor | None = None,
) -> Tensor:
    """Weigh each masked row and sum per sample.

    elbo:    CE / (p * answer_length), mean over the K copies: unbiased for the NELBO per answer
             token (LLaDA, arXiv 2502.09992, eq. 3; the second copy of a pair has p = 1 - p_mask).
    uniform: CE / answer_length, mean over complementary pairs: one score per answer token (LaViDa).

    token_ce: (M,) fp32, in the row-major order of `masked_indices`.
    masked_indices: (K, B, L) bool. p_mask: (K, B) fp32, or (K, B, L) of each position.
    answer_length: (B,) int.
    token_weight: (B, L) fp32, 0 where there is no target; w_i / sum_j w_j then replaces
    1 / answer_length. The sum expects sum_i w_i CE_i / sum_i w_i: no bound on the
    likelihood any more unless all weights are alike.
    Returns (B,) fp32. A sample without any answer token adds 0 (and still counts in B).
    """
    if weighting not in LOSS_WEIGHTINGS:
        raise ValueError(f"loss_weighting={weighting!r} is unknown; choose from {LOSS_WEIGHTINGS}")
    copies, samples, _ = masked_indices.shape
    copy_of, sample_of, place = masked_indices.nonzero(as_tuple=True)  # (M,) each
    if token_weight is None:
        weight = 1 / answer_length.clamp(min=1)[sample_of].float()
    else:
        total = token_weight.sum(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
        weight = token_weight[sample_of, place] / total[sample_of]
    if weighting == "elbo":
        index = (copy_of, sample_of, place) if p_mask.dim() == 3 else (copy_of, sample_of)
        weight = weight / (p_mask[index] * copies)
    else:
        weight = weight / max(1, copies // 2)
    sample_loss = torch.zeros(samples, dtype=torch.float32, device=token_ce.device)
    return sample_loss.index_add(0, sample_of, token_ce * weight)


def fill_weight(labels: Tensor, fill_token_id: int, weight: float) -> Tensor:
    """`weight` for the fill after the first end of text, 1 for every other target, 0 elsewhere.

    The first end-of-text token ends the report and keeps its weight; those that repeat it only say
    that the report is still over, and on a wide canvas they are most of the targets.
    labels: (B, L), negative where there is no target. Returns (B, L) fp32.
    """
    is_fill = labels == fill_token_id
    repeated = is_fill & (is_fill.long().cumsum(dim=1) > 1)
    weights = (labels >= 0).float()
    return weights.masked_fill(repeated, weight)


def next_token_targets(labels: Tensor, end_tokens: Sequence[int]) -> Tensor:
    """The targets that a left-to-right reading is asked for: each answer up to its end token.

    What follows the end (line break, fill) is the canvas's, not the text's. Each run of targets is
    an answer of its own. labels: (B, L), negative where there is no target. Returns (B, L) bool.
    """
    target = labels >= 0
    is_end = target & torch.isin(labels, torch.tensor(list(end_tokens), device=labels.device))
    before = is_end.long().cumsum(dim=1) - is_end.long()
    starts = target & ~F.pad(target, (1, 0))[:, :-1]
    at_start = torch.where(starts, before, 0).cummax(dim=1).values
    return target & (before == at_start)


def mean_by_sample(token_ce: Tensor, counted: Tensor) -> Tensor:
    """Mean of token_ce (M,) over the counted places (B, R) of each sample; 0 without any. (B,)"""
    row = counted.nonzero(as_tuple=True)[0]
    total = token_ce.new_zeros(len(counted)).index_add(0, row, token_ce)
    return total / counted.sum(dim=1).clamp(min=1)


def cross_entropy_by_copy(token_ce: Tensor, masked_indices: Tensor) -> Tensor:
    """Sum of the unweighted cross-entropy of each copy of each sample: what a run reports by t.

    token_ce: (M,), in the row-major order of `masked_indices` (K, B, L). Returns (K, B) fp32.
    """
    copies, samples, _ = masked_indices.shape
    copy_of, sample_of, _ = masked_indices.nonzero(as_tuple=True)
    sums = token_ce.new_zeros(copies * samples)
    return sums.index_add(0, copy_of * samples + sample_of, token_ce).view(copies, samples)
