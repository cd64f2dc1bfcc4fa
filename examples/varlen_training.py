"""Train attention on sequences of many lengths without padding: flash-attn's function on a CPU."""

import torch

from fusewire.dropin.flash_attn import flash_attn_varlen_qkvpacked_func


class Copier(torch.nn.Module):
    """One causal layer that learns to repeat the first token of its sequence."""

    def __init__(self, vocabulary=12, size=32, heads=4):
        super().__init__()
        self.heads = heads
        self.embedding = torch.nn.Embedding(vocabulary, size)
        self.position = torch.nn.Embedding(64, size)
        self.qkv = torch.nn.Linear(size, 3 * size)
        self.head = torch.nn.Linear(size, vocabulary)

    def forward(self, tokens, places, starts, longest):
        """Takes what :func:`batch` returns; returns logits ``(total, vocabulary)``."""
        x = self.embedding(tokens) + self.position(places)
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        mixed = flash_attn_varlen_qkvpacked_func(qkv, starts, longest, causal=True)
        return self.head(x + mixed.flatten(1))


def batch(random):
    """Sequences behind each other: tokens, their places, where sequences start, the longest."""
    lengths = torch.randint(2, 33, (16,), generator=random)
    starts = torch.cat([torch.zeros(1), lengths.cumsum(0)]).int()
    tokens = torch.randint(12, (int(starts[-1]),), generator=random)
    places = torch.cat([torch.arange(length) for length in lengths])
    return tokens, places, starts, int(lengths.max())


torch.manual_seed(0)
model, random = Copier(), torch.Generator().manual_seed(0)
optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
for step in range(120):
    tokens, places, starts, longest = batch(random)
    first = tokens[starts[:-1].long()].repeat_interleave(starts.diff().long())
    loss = torch.nn.functional.cross_entropy(model(tokens, places, starts, longest), first)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    if step % 30 == 0:
        print(f"step {step:3}  loss {loss.item():.3f}")
print(f"at the end  loss {loss.item():.3f}")
assert loss < 0.5
