"""One decoding step: propose a token for every masked position, and choose which to accept."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llava.diffusion.config import SamplingConfig
from llava.diffusion.masking import row_seed


@dataclass(frozen=True)
class Proposal:
    """A token for every candidate position; all (B, R), -inf or 0 where there is no candidate.

    tokens: ids. probability: the token's share of the full softmax. score: by what proposals are
    ranked, larger is better. entropy: of the full softmax in nats, None when not requested.
    """

    tokens: Tensor
    probability: Tensor
    score: Tensor
    entropy: Tensor | None


def consider(
    logits: Tensor,
    window: Tensor,
    mask_token_id: int,
    config: SamplingConfig,
    seeds: Sequence[int],
    forbidden: Tensor | None = None,
) -> Proposal:
    """Propose a token for every position of the window, and score it.

    logits: (M, V) fp32. window: (B, R) bool with M true. seeds: one a row, of this step.
    forbidden: (M, V) bool, what may not be proposed; it keeps its share of the softmax.
    """
    allowed = logits if forbidden is None else logits.masked_fill(forbidden, -torch.inf)
    total = logits.logsumexp(dim=-1)
    tokens, probability = propose(allowed, total, window, mask_token_id, config.temperature, seeds)
    entropies = None
    if config.remasking == "entropy" or config.entropy_bound is not None:
        entropies = _spread(entropy(logits), window, torch.inf)
    score = probability
    if config.remasking == "random":
        score = random_scores(window, seeds)
    elif config.remasking == "margin":
        score = _spread(margin(allowed, total, mask_token_id), window, -torch.inf)
    elif config.remasking == "entropy":
        score = -entropies
    return Proposal(tokens, probability, score, entropies)


def propose(
    logits: Tensor,
    total: Tensor,
    rows: Tensor,
    mask_token_id: int,
    temperature: float,
    seeds: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """A token for every undecided position, and its share of the full softmax.

    The mask token is left out of the choice only, not of the softmax. At temperature 0 the choice
    is the argmax, above it Gumbel-max on logits / temperature.

    logits: (M, V) fp32. total: (M,) their logsumexp. rows: (B, R) bool with M true. seeds: one a
    row. Returns (B, R) ids and (B, R) fp32; 0 and -inf outside `rows`.
    """
    if temperature > 0:
        noise = _gumbel(rows, logits.shape[-1], seeds)
        chosen = best_token(logits.double() / temperature + noise, mask_token_id)[1]
        chosen_logit = logits.gather(1, chosen[:, None]).squeeze(1)
    else:
        chosen_logit, chosen = best_token(logits, mask_token_id)
    probability = (chosen_logit - total).exp()
    tokens = torch.zeros(rows.shape, dtype=torch.long, device=rows.device)
    tokens[rows] = chosen
    return tokens, _spread(probability, rows, -torch.inf)


def best_token(logits: Tensor, mask_token_id: int) -> tuple[Tensor, Tensor]:
    """The largest logit but the mask token's, and its id; the lowest id of equals. (M, V) -> (M,).

    In two halves around the mask token, so that the logits are neither copied nor written to.
    """
    halves = [(0, logits[:, :mask_token_id]), (mask_token_id + 1, logits[:, mask_token_id + 1 :])]
    found = [(offset, *half.max(dim=-1)) for offset, half in halves if half.shape[1]]
    offset, value, token = found[0]
    token = token + offset
    for offset, other, index in found[1:]:
        token = torch.where(other > value, index + offset, token)
        value = torch.maximum(value, other)
    return value, token


def margin(logits: Tensor, total: Tensor, mask_token_id: int) -> Tensor:
    """Probability of the likeliest token minus the second's, the mask token left out. (M,)

    total: (M,) the logsumexp of the full softmax.
    """
    top = logits.topk(min(3, logits.shape[-1]), dim=-1)
    value = top.values.masked_fill(top.indices == mask_token_id, -torch.inf)
    share = (value.sort(dim=-1, descending=True).values[:, :2] - total[:, None]).exp()
    return share[:, 0] - share[:, 1:].sum(dim=-1)


def entropy(logits: Tensor) -> Tensor:
    """Of the full softmax, in nats. (M, V) -> (M,)"""
    log_share = logits.log_softmax(dim=-1)
    return -(log_share.exp() * log_share).sum(dim=-1)


def accept(proposal: Proposal, window: Tensor, quota: Tensor, config: SamplingConfig) -> Tensor:
    """Which proposals to keep: the best `quota` by score (at least one), and what a rule adds.

    Ties go to the left. window: (B, R) bool, the candidates. quota: (B,). Returns (B, R) bool.
    """
    accepted = _rank(proposal.score.masked_fill(~window, -torch.inf)) < quota.clamp(min=1)[:, None]
    if config.threshold is not None:
        accepted |= proposal.probability >= config.threshold
    elif config.factor is not None:
        accepted |= factor_rule(proposal.probability, config.factor)
    elif config.entropy_bound is not None:
        accepted |= entropy_bound_rule(proposal.entropy, config.entropy_bound)
    return window & accepted


def doubtful(
    logits: Tensor, tokens: Tensor, checked: Tensor, least: float, accepted: Tensor
) -> Tensor:
    """Re-mask checked tokens below `least`, lowest first, always fewer than this step accepted.

    So every step decides something. logits: (M, V) fp32 of the checked positions (B, R) bool, each
    hidden from itself. tokens, accepted: (B, R). Returns (B, R) bool.
    """
    share = logits.gather(1, tokens[checked][:, None]).squeeze(1) - logits.logsumexp(dim=-1)
    probability = _spread(share.exp(), checked, torch.inf)
    most = accepted.sum(dim=1) - 1
    return (probability < least) & (_rank(-probability) < most[:, None])


def factor_rule(probability: Tensor, factor: float) -> Tensor:
    """The ranks n (from 1) while c_(n) >= 1 - factor / (n + 1). (B, R), -inf: no candidate."""
    ordered = probability.sort(dim=1, descending=True).values
    place = torch.arange(1, ordered.shape[1] + 1, device=ordered.device)
    count = (ordered >= 1 - factor / (place + 1)).long().cumprod(dim=1).sum(dim=1)
    return _rank(probability) < count[:, None]


def entropy_bound_rule(entropies: Tensor, bound: float) -> Tensor:
    """The longest run S of the lowest entropies with sum(S) - max(S) <= bound (EB-Sampler).

    entropies: (B, R), inf where there is no candidate.
    """
    ordered = entropies.sort(dim=1).values
    before = ordered.cumsum(dim=1) - ordered  # in ascending order the largest is the last
    count = ((before <= bound) & ordered.isfinite()).sum(dim=1)
    return _rank(-entropies) < count[:, None]


def _rank(score: Tensor) -> Tensor:
    """Place of each score in its row, 0 is the largest; equals from left to right. (B, R)"""
    return score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)


def _spread(values: Tensor, rows: Tensor, fill: float) -> Tensor:
    """(M,) values at the M true places of `rows` (B, R), `fill` elsewhere."""
    spread = torch.full(rows.shape, fill, device=rows.device, dtype=values.dtype)
    spread[rows] = values
    return spread


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
