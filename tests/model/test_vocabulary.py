"""Both uses of a tied vocabulary through one node, against the two modules on their own."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from llava.model.layers.vocabulary import Vocabulary

TOKENS, WIDTH, MASK, PADDING = 61, 8, 59, 60


def parts(tied=True, padding=None):
    torch.manual_seed(0)
    embed = nn.Embedding(TOKENS, WIDTH, padding_idx=padding)
    nn.init.normal_(embed.weight)
    head = nn.Linear(WIDTH, TOKENS, bias=False)
    if tied:
        head.weight = embed.weight
    return embed, head


def ids():
    """With a token twice, and padding."""
    return torch.tensor([[5, 7, 5, 9], [PADDING, 0, 1, PADDING]])


def loss_of(embed, head, plain):
    """Uses ids and mask token at both ends; by the modules alone or by `Vocabulary`."""
    if plain:
        vectors, masked, score = embed(ids()), embed(torch.tensor([MASK])), head
    else:
        vocabulary = Vocabulary(embed, head, MASK)
        vectors, score = vocabulary.look_up(ids()), vocabulary.score
        masked = vocabulary.masked_embed
    hidden = (vectors + masked).tanh()
    return score(hidden).logsumexp(-1).sum() + score(masked)[0, 3]


def gradients(embed, head, plain):
    loss = loss_of(embed, head, plain)
    weights = {id(part.weight): part.weight for part in (embed, head)}
    return loss, torch.autograd.grad(loss, list(weights.values()))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("padding", [None, PADDING])
def test_loss_and_gradients_are_those_of_the_modules(tied, padding):
    embed, head = parts(tied, padding)
    loss, ours = gradients(embed, head, plain=False)
    plain_loss, plain = gradients(embed, head, plain=True)
    assert torch.equal(loss, plain_loss)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


class LargeTensors(TorchDispatchMode):
    """Counts the new tensors of the vocabulary's size."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        if isinstance(result, torch.Tensor) and result.shape == (TOKENS, WIDTH):
            given = {part.data_ptr() for part in arguments if isinstance(part, torch.Tensor)}
            self.count += result.data_ptr() not in given
        return result


@pytest.mark.parametrize(("way", "large"), [("plain", 3), ("vocabulary", 1)])
def test_the_backward_pass_makes_one_tensor_of_the_vocabularys_size(way, large):
    embed, head = parts()
    vocabulary = Vocabulary(embed, head, MASK)
    look_up, score = (embed, head) if way == "plain" else (vocabulary.look_up, vocabulary.score)
    loss = score(look_up(ids()).tanh()).logsumexp(-1).sum()
    with LargeTensors() as made:
        loss.backward()
    assert made.count == large


def test_the_weights_are_not_written_to():
    embed, head = parts()
    before = embed.weight.detach().clone()
    loss_of(embed, head, plain=False).backward()
    assert torch.equal(embed.weight, before)


@pytest.mark.parametrize("why", ["frozen", "untied", "hook", "wrapped", "no_grad"])
def test_the_modules_themselves_run_where_something_happens_around_them(why):
    embed, head = parts(tied=why != "untied")
    calls = []
    if why == "frozen":
        embed.weight.requires_grad_(False)
    if why == "hook":  # ZeRO-3 fetches the weights in such hooks
        head.register_forward_pre_hook(lambda *_: calls.append("hook"))
    if why == "wrapped":
        head = nn.Sequential(head)
        head.weight = embed.weight
    vocabulary = Vocabulary(embed, head, MASK)
    with torch.set_grad_enabled(why != "no_grad"):
        logits = vocabulary.score(vocabulary.look_up(ids()))
    assert vocabulary._weight is None
    assert torch.equal(logits, head(embed(ids())))
    assert calls == (["hook"] * 2 if why == "hook" else [])


def test_a_second_backward_pass_adds_to_the_gradient():
    embed, head = parts()
    once = gradients(embed, head, plain=True)[1][0]
    for _ in range(2):
        loss_of(embed, head, plain=False).backward()
    torch.testing.assert_close(embed.weight.grad, 2 * once)
