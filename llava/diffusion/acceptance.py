"""One decoding step's two choices: which token to propose, and which proposals to keep."""

from collections.abc import Sequence

import torch
from torch import Tensor

from llava.diffusion.masking import row_seed


def propose(
    logits: Tensor, rows: Tensor, mask_token_id: int, temperature: float, seeds: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """A token for every undecided position, and its share of the full softmax.

    The mask token is left out of the choice only, not of the softmax. At temperature 0 the choice
    is the argmax, above it Gumbel-max on logits / temperature.

    logits: (M, V) fp32. rows: (B, R) bool with M true. seeds: one a row.
    Returns (B, R) ids and (B, R) fp32; 0 and -inf outside `rows`.
    """
    candidates = logits.clone()
    candidates[:, mask_token_id] = -torch.inf
    if temperature > 0:
        noise = _gumbel(rows, logits.shape[-1], seeds)
        candidates = candidates.double() / temperature + noise
    chosen = candidates.argmax(dim=-1)
    log_probability = logits.gather(1, chosen[:, None]).squeeze(1) - logits.logsumexp(dim=-1)
    tokens = torch.zeros(rows.shape, dtype=torch.long, device=rows.device)
    probability = torch.full(rows.shape, -torch.inf, device=rows.device)
    tokens[rows] = chosen
    probability[rows] = log_probability.exp()
    return tokens, probability


def accept(
    score: Tensor,
    probability: Tensor,
    window: Tensor,
    quota: Tensor,
    threshold: float | None = None,
    factor: float | None = None,
) -> Tensor:
    """Which proposals to keep: the best `quota` by score (at least one), and what a rule adds.

    threshold adds every proposal of at least this probability; factor adds the ranks n (from 1)
    while c_(n) >= 1 - factor / (n + 1) (both Fast-dLLM, arXiv 2505.22618). Ties go to the left.

    score, probability: (B, R). window: (B, R) bool, the candidates. quota: (B,). Returns (B, R).
    """
    order = score.masked_fill(~window, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)  # (B, R), 0 is the best
    count = quota.clamp(min=1)
    if factor is not None:
        place = torch.arange(1, rank.shape[1] + 1, device=rank.device)
        good = probability.gather(1, order) >= 1 - factor / (place + 1)
        count = torch.maximum(count, good.long().cumprod(dim=1).sum(dim=1))
    accepted = rank < count[:, None]
    if threshold is not None:
        accepted |= probability >= threshold
    return window & accepted


def random_scores(rows: Tensor, seeds: Sequence[int]) -> Tensor:
    """Uniform scores (B, R), each row a function of its seed."""
    length, device = rows.shape[1], rows.device
    return torch.stack(
        [torch.rand(length, generator=_generator(device, seed), device=device) for seed in seeds]
    )


def _gumbel(rows: Tensor, vocabulary: int, seeds: Sequence[int]) -> Tensor:
    """Standard Gumbel noise (M, V) in fp64: fp32 cuts the tail (arXiv 2409.02908).

    A position of a row gets the same draws whatever else is undecided.
    """
    noise = []
    for row, seed in zip(rows, seeds, strict=True):
        for position in row.nonzero().squeeze(1).tolist():
            draws = torch.empty(vocabulary, dtype=torch.float64, device=rows.device)
            draws.exponential_(generator=_generator(rows.device, row_seed(seed, position)))
            noise.append(-draws.log())
    return torch.stack(noise)


def _generator(device: torch.device, seed: int) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)
