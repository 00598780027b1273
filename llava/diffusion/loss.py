"""The training objective: weighted cross-entropy on masked rows, one value per sample.

Second step of training, after the model has scored the rows that `masking` hid. The rows nobody
masked never reach this module: logits are computed on masked rows only.
"""

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
) -> Tensor:
    """Weigh each masked row and sum per sample.

    elbo:    CE / (p * answer_length), mean over the K copies: unbiased for the NELBO per answer
             token (LLaDA, arXiv 2502.09992, eq. 3; the second copy of a pair has p = 1 - p_mask).
    uniform: CE / answer_length, mean over complementary pairs: one score per answer token (LaViDa).

    token_ce: (M,) fp32, in the row-major order of `masked_indices`.
    masked_indices: (K, B, L) bool. p_mask: (K, B) fp32. answer_length: (B,) int.
    Returns (B,) fp32. A sample without any answer token adds 0 (and still counts in B).
    """
    if weighting not in LOSS_WEIGHTINGS:
        raise ValueError(f"loss_weighting={weighting!r} is unknown; choose from {LOSS_WEIGHTINGS}")
    copies, samples, _ = masked_indices.shape
    copy_of, sample_of, _ = masked_indices.nonzero(as_tuple=True)  # (M,) each
    weight = 1 / answer_length.clamp(min=1)[sample_of].float()
    if weighting == "elbo":
        weight = weight / (p_mask[copy_of, sample_of] * copies)
    else:
        weight = weight / max(1, copies // 2)
    sample_loss = torch.zeros(samples, dtype=torch.float32, device=token_ce.device)
    return sample_loss.index_add(0, sample_of, token_ce * weight)


def cross_entropy_by_copy(token_ce: Tensor, masked_indices: Tensor) -> Tensor:
    """Sum of the unweighted cross-entropy of each copy of each sample: what a run reports by t.

    token_ce: (M,), in the row-major order of `masked_indices` (K, B, L). Returns (K, B) fp32.
    """
    copies, samples, _ = masked_indices.shape
    copy_of, sample_of, _ = masked_indices.nonzero(as_tuple=True)
    sums = token_ce.new_zeros(copies * samples)
    return sums.index_add(0, copy_of * samples + sample_of, token_ce).view(copies, samples)
