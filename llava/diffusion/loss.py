"""The training objective: weighted cross-entropy on masked rows, one value per sample.

Second step of training, after the model has scored the rows that `masking` hid. The rows nobody
masked never reach this module: logits are computed on masked rows only.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

LOSS_WEIGHTINGS = ("elbo", "uniform")
CERTAINTY_TEMPERATURE = 0.5
"""At which dParallel lowers the entropy (arXiv 2509.26488, certainty-forcing loss)."""


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


def mean_by_sample(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of values (M,) over the counted places of each sample; 0 without any.

    counted: (B, R) or (K, B, R) bool, in whose row-major order the values are. Returns (B,).
    """
    sample = counted.nonzero(as_tuple=True)[-2]
    total = values.new_zeros(counted.shape[-2]).index_add(0, sample, values)
    count = counted.new_zeros(counted.shape[-2], dtype=torch.long)
    return total / count.index_add(0, sample, torch.ones_like(sample)).clamp(min=1)


def draft_divergence(draft_logits: Tensor, causal_logits: Tensor) -> Tensor:
    """KL(p || q) = sum_v p(v) (log p(v) - log q(v)) of each token, in fp32.

    p, the causal reading, is the teacher and gets no gradient; q is the draft of the same token.
    The smaller it is, the more drafts self-speculation accepts (DistillSpec, arXiv 2310.08461).
    draft_logits, causal_logits: (M, V). Returns (M,).
    """
    teacher = causal_logits.detach().float().log_softmax(dim=-1)
    draft = draft_logits.float().log_softmax(dim=-1)
    return F.kl_div(draft, teacher, reduction="none", log_target=True).sum(dim=-1)


def certainty_entropy(logits: Tensor, temperature: float = CERTAINTY_TEMPERATURE) -> Tensor:
    """H = -sum_v q(v) log q(v) of q = softmax(logits / temperature), in fp32.

    Lowered on masked tokens that are right already, so that more of them are decided in a pass
    (certainty forcing: dParallel, arXiv 2509.26488; part of d3LLM, arXiv 2601.07568).
    logits: (M, V). Returns (M,).
    """
    log_share = (logits.float() / temperature).log_softmax(dim=-1)
    return -(log_share.exp() * log_share).sum(dim=-1)


def cross_entropy_by_copy(token_ce: Tensor, masked_indices: Tensor) -> Tensor:
    """Sum of the unweighted cross-entropy of each copy of each sample: what a run reports by t.

    token_ce: (M,), in the row-major order of `masked_indices` (K, B, L). Returns (K, B) fp32.
    """
    copies, samples, _ = masked_indices.shape
    copy_of, sample_of, _ = masked_indices.nonzero(as_tuple=True)
    sums = token_ce.new_zeros(copies * samples)
    return sums.index_add(0, copy_of * samples + sample_of, token_ce).view(copies, samples)
