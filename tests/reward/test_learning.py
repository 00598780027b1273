"""The whole loop on a tiny language model: sample, reward, score in one pass, step."""

import torch
from tiny_language import END, PAD, build, ragged_prompts

from llava.constants import IGNORE_INDEX
from llava.diffusion.result import DecodeOptions
from llava.model.decoding.decode import decode, token_sampling
from llava.model.language_model.report_pass import Reports
from llava.reward.policy import Objective, advantages, policy_loss

SIZE, WIDTH, WANTED = 8, 12, 7
OBJECTIVE = Objective(clip=0.2, kl_weight=0.0, budget=WIDTH)


def sample(model, prompts, step):
    ids, mask = prompts
    sampling = {"gen_length": WIDTH, "block_length": 4, "temperature": 1.0, "seed": step}
    seeds = DecodeOptions(row_seeds=range(len(ids) * SIZE))
    config = token_sampling(sampling | {"decoder": "speculative"})
    embeds = model.model.embed_tokens(ids)
    return decode(model.eval(), embeds, mask, config, seeds, count=SIZE)


def rows_of(prompts, decoded):
    """Prompt and reports of each sample in one row, and how long the reports are."""
    ids, mask = prompts
    start, spoken = mask.sum(dim=1, keepdim=True), decoded.decided_at >= 0
    flat = decoded.sequences.view(len(ids), -1)
    place = torch.arange(ids.shape[1] + flat.shape[1])
    offset = place - start
    taken = flat.gather(1, offset.clamp(0, flat.shape[1] - 1))
    prompt = torch.nn.functional.pad(ids, (0, flat.shape[1]), value=PAD)
    inside = (offset >= 0) & (offset < flat.shape[1])
    whole = torch.where(inside, taken, prompt)
    labels = whole.masked_fill(~inside, IGNORE_INDEX)
    inputs = {"input_ids": whole, "labels": labels, "attention_mask": (offset < flat.shape[1])}
    return inputs, spoken.sum(dim=1).view(len(ids), SIZE)


def test_the_share_of_a_chosen_token_rises():
    model, prompts = build("block", layers=2), ragged_prompts()
    model.config.eos_token_id = [END]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    shares = []
    for step in range(30):
        decoded = sample(model, prompts, step)
        spoken = (decoded.decided_at >= 0).view(-1, SIZE, WIDTH)
        wanted = (decoded.sequences.view(-1, SIZE, WIDTH) == WANTED) & spoken
        reward = wanted.sum(dim=2) / spoken.sum(dim=2)
        shares.append(float(reward.mean()))
        inputs, length = rows_of(prompts, decoded)
        log_probs = model.train()(**inputs, reports=Reports(length)).log_probs
        advantage = advantages(reward)
        found = policy_loss(log_probs, log_probs.detach(), None, spoken, advantage, OBJECTIVE)
        optimizer.zero_grad()
        found.sample_loss.mean().backward()
        optimizer.step()
    assert sum(shares[:5]) / 5 < 0.1
    assert sum(shares[-5:]) / 5 > 0.5
