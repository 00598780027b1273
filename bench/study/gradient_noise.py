"""The noise of a training objective's gradient, at fixed weights and samples: what is estimated.

A batch of B samples is kept, the noise (times and masks) is drawn M times, and each draw gives a
gradient g_m of the language model's parameters, d numbers. With S the sample covariance,

    mean      m = (1/M) sum_m g_m
    trace     T = tr S = (1/(M-1)) sum_m |g_m - m|^2        unbiased for tr Cov(g)
    signal    G = |m|^2 - T/M                               unbiased for |E g|^2,

as E|m|^2 = |E g|^2 + tr Cov(g)/M. What is reported is T/G, the variance relative to the squared
gradient that is sought: it has no unit and does not change when the loss is scaled, so that `elbo`
and `uniform` compare. Objectives of one weighting and one law of t have the same E g but for a
known scale; they share one G, that of the least noisy of them, so that T alone orders them.
A G that is not above 0 means that M is too small for the noise: an error that asks for more.

Welford's update keeps it to two gradients in memory, whatever M: with delta = g - m before g is
counted, m += delta/k and sum |g - m|^2 += |delta|^2 (k-1)/k, where k counts g.

For two views whose noise is independent T/G halves, as it does with twice the samples: so the cost
of a draw is reported with it. `copies` is how many masked copies of a sample it runs; `per_copy` is
T/G times that: the variance at equal copies, 1 to 1 with `single`. The prefix is computed once for
all copies of a sample, so `seconds` says what a draw took, forward and backward. `loss_variance` is
the variance of the loss over its squared mean, for the same draws. The spread (`low`, `high`) is
the smallest and the largest over several batches, `variance` their median.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llava.diffusion.masking import Noise


@dataclass(frozen=True)
class Objective:
    """As the trainer's options of the same names; views: draws of the masks of each sample."""

    name: str
    weighting: str
    complementary: bool = True
    views: int = 1
    stratified: bool = False
    t_power: float = 1.0

    @property
    def copies(self) -> int:
        return self.views * (2 if self.complementary else 1)

    @property
    def scale(self) -> float:
        """Its expected gradient over that of one mask with the same weighting and law of t:
        `elbo` is a mean over copies, `uniform` a sum over each pair of them."""
        return self.copies / max(1, self.copies // 2) if self.weighting == "uniform" else 1.0

    @property
    def family(self) -> tuple[str, float]:
        """Objectives of one family seek the same gradient, but for their scale."""
        return self.weighting, self.t_power


def _of_both(name: str, **options: object) -> tuple[Objective, Objective]:
    return tuple(Objective(f"{name}_{w}", w, **options) for w in ("elbo", "uniform"))


OBJECTIVES = (
    *_of_both("single", complementary=False),
    *_of_both("independent", complementary=False, views=2),
    *_of_both("complementary"),
    *_of_both("stratified", stratified=True),
    Objective("base", "uniform", stratified=True, t_power=3),
    *_of_both("pairs2", views=2),
    *_of_both("pairs4", views=4),
)
"""`independent`: two masks drawn apart at times half apart, as `--num_views 2` trains. `base`: the
demo's, times leaning to the top."""


@dataclass(frozen=True)
class Row:
    """An objective measured. seconds: of a draw, forward and backward, the median."""

    objective: str
    variance: float
    low: float
    high: float
    loss_variance: float
    copies: int
    per_copy: float
    seconds: float


class Moments:
    """Mean and summed squared deviation of vectors that come one by one; two vectors of memory."""

    def __init__(self) -> None:
        self.count, self.squares = 0, 0.0
        self.mean: list[Tensor] = []

    def add(self, parts: Iterable[Tensor]) -> None:
        """parts: the vector, in pieces of any shape, the same every time; not kept."""
        import torch

        parts = list(parts)
        self.mean = self.mean or [torch.zeros_like(part) for part in parts]
        self.count += 1
        distance = 0.0
        for mean, part in zip(self.mean, parts, strict=True):
            delta = part - mean
            distance += float(delta.double().square().sum())
            mean += delta / self.count
        self.squares += distance * (self.count - 1) / self.count

    @property
    def trace(self) -> float:
        """Unbiased estimate of the trace of the covariance."""
        return self.squares / (self.count - 1)

    @property
    def signal(self) -> float:
        """Unbiased estimate of the squared norm of the expectation."""
        total = sum(float(mean.double().square().sum()) for mean in self.mean)
        return total - self.trace / self.count


@dataclass(frozen=True)
class Measured:
    """One objective on one batch. trace, signal: T and G of the gradient; loss_variance: T/G of the
    loss; seconds: of each draw."""

    trace: float
    signal: float
    loss_variance: float
    seconds: list[float]


def measure(
    draw_loss: Callable[[int], Tensor], parameters: Sequence[Tensor], draws: int
) -> Measured:
    """draw_loss: the loss under the noise of draw m, of which `parameters` get the gradient."""
    import torch

    gradients, losses, seconds = Moments(), Moments(), []
    for draw in range(draws):
        start = time.perf_counter()
        loss = draw_loss(draw)
        found = torch.autograd.grad(loss, parameters)
        if loss.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        gradients.add(found)
        losses.add([loss.detach()])
    return Measured(gradients.trace, gradients.signal, losses.trace / losses.signal, seconds)


def relative(batch: dict[Objective, Measured]) -> dict[Objective, float]:
    """T/G of every objective on one batch. Raises ValueError when the draws are too few."""
    signals: dict[tuple[str, float], float] = {}
    for family in {objective.family for objective in batch}:
        own = {o: m for o, m in batch.items() if o.family == family}
        best = min(own, key=lambda o: own[o].trace / o.scale**2)
        signals[family] = own[best].signal / best.scale**2
        if signals[family] <= 0:
            draws = len(own[best].seconds)
            raise ValueError(
                f"{best.name}: {draws} draws are too few to tell the gradient from its noise; give "
                "more --draws, or a larger --batch-size"
            )
    return {o: m.trace / o.scale**2 / signals[o.family] for o, m in batch.items()}


def draw_noise(
    objective: Objective, target_mask: Tensor, samples: Sequence[int], draw: int, seed: int
) -> list[Noise]:
    """The noise that training would draw for these samples in its step `draw`."""
    from llava.train.noise import stratified_step_times, training_noise

    times = None
    if objective.stratified:
        times = stratified_step_times(draw, seed, len(samples)) ** (1 / objective.t_power)
    return training_noise(target_mask, list(samples), draw, seed, times, objective.views)


def summarise(batches: Sequence[dict[Objective, Measured]]) -> list[Row]:
    """A row for each objective, over all batches."""
    ratios = [relative(batch) for batch in batches]
    rows = []
    for objective in batches[0]:
        variances = [batch[objective] for batch in ratios]
        found = [batch[objective] for batch in batches]
        rows.append(
            Row(
                objective=objective.name,
                variance=median(variances),
                low=min(variances),
                high=max(variances),
                loss_variance=median(each.loss_variance for each in found),
                copies=objective.copies,
                per_copy=median(variances) * objective.copies,
                seconds=median(second for each in found for second in each.seconds),
            )
        )
    return rows


def table(rows: Sequence[dict]) -> str:
    """Markdown, of the rows of the result file."""
    lines = [
        "| objective | gradient variance | lowest to highest | times copies | copies |"
        " loss variance | s/draw |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['objective']} | {row['variance']:.3g} | {row['low']:.3g} to {row['high']:.3g} "
            f"| {row['per_copy']:.3g} | {row['copies']} | {row['loss_variance']:.3g} | "
            f"{row['seconds']:.3f} |"
        )
    return "\n".join(lines)
