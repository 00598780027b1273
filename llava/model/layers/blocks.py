"""Mode `block` in training: the strips of an answer, and which of them sees which.

After the prefix of a sample come, at the answer's own positions a_1 .. a_R in blocks of b,

clean    c_0 .. c_{R-1}, the answer itself, left to right: c_i sees the prefix and c_1 .. c_i, and
         predicts a_{i+1}. c_0 is the last prefix token once more, as a query only.
noisy k  the answer under the k-th mask: a row sees the prefix, the clean rows of earlier blocks,
         and the rows of its own copy in its own block, both ways; it predicts its own token.

So a noisy block meets in training what it meets in decoding: clean text before it, nothing after
it. One block over the whole answer is mode `prefix`.
"""

import torch
from torch import Tensor

from llava.model.layers.attention import take_rows


def clean_strip(embeds: Tensor, start: Tensor, length: int) -> Tensor:
    """c_0 .. c_{R-1} of embeddings (B, L, D) whose answers begin at start (B,): (B, R, D).

    Without a prefix c_0 is some other token, which no row sees and no loss reads.
    """
    return take_rows(embeds, start - 1, length)


def strip_offsets(copies: int, device: torch.device, more: int = 0) -> Tensor:
    """What is added to the positions of the strips (1 + K + more,): clean ones are a token early.

    more: further clean strips, as in `visible`.
    """
    return torch.tensor([-1] + [0] * copies + [-1] * more, device=device)


def visible(
    start: Tensor,
    block_length: Tensor,
    block_offset: Tensor,
    copies: int,
    length: int,
    more: int = 0,
) -> Tensor:
    """Which strip of a sample sees which, (B or 1, C R, C R) bool for C = 1 + copies + more.

    start, block_length, block_offset: (B,). One mask serves the batch where all rows agree.
    more: clean strips of other answers after the noisy ones, each by itself.
    """
    grid = torch.stack([block_length, block_offset])
    if bool((grid == grid[:, :1]).all()) and bool((start > 0).all()):
        start, grid = start[:1], grid[:, :1]
    block_length, block_offset = grid[:, :, None]
    index = torch.arange(length, device=start.device)
    block = (index + block_offset) // block_length  # (B, R): of answer place r, 0-based
    row, token = index[:, None], index  # of clean rows: query c_i, key c_j
    clean = (token >= 1) & (token <= row)
    alone = (row == 0) & (token == 0)  # without a prefix c_0 has only itself to see
    clean = clean | (alone & (start == 0)[:, None, None])
    # Key c_j is answer place j - 1.
    earlier = (index - 1 + block_offset) // block_length
    noisy_to_clean = (token >= 1) & (earlier[:, None, :] < block[:, :, None])
    own = block[:, :, None] == block[:, None, :]
    nothing = torch.zeros_like(own)
    clean = clean.expand_as(own)
    rows = [torch.cat([clean, *[nothing] * (copies + more)], dim=2)]
    for copy in range(copies):
        parts = [own if other == copy else nothing for other in range(copies)]
        rows.append(torch.cat([noisy_to_clean, *parts, *[nothing] * more], dim=2))
    for strip in range(more):
        parts = [clean if other == strip else nothing for other in range(more)]
        rows.append(torch.cat([*[nothing] * (1 + copies), *parts], dim=2))
    return torch.cat(rows, dim=1)
