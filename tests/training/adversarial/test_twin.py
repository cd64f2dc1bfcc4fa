"""The rival of our loop in the benches is the same GAN: equal weights and noise, equal steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from benches.training.plain import Twin
from benches.training.twin import Ours, pair

from fusewire.recipes import gan
from fusewire.training.adversarial.data import DataConfig, SampleFormat

FORM = SampleFormat("images", (1, 8, 6))


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        ("mlp", "non_saturating"),
        ("mlp", "relativistic"),
        ("convolutional", "non_saturating"),
        ("convolutional", "hinge"),
        ("residual", "relativistic"),
    ],
)
def test_ours_makes_the_steps_of_the_twin(model: str, loss: str) -> None:
    recipe = gan.default(DataConfig(), model, loss)
    sizes = {"hidden_sizes": (8, 7)} if model == "mlp" else {"width": 8}
    config = replace(recipe, model=replace(recipe.model, noise_size=4, **sizes), batch=6, seed=5)
    ours, plain = Ours(config, FORM), Twin(config, FORM)
    pair(ours, plain)
    source = torch.Generator().manual_seed(0)
    for step in range(4):
        real = torch.rand(config.batch, *FORM.shape, generator=source)
        ours.step([real.clone()], step)
        plain.step([real.clone()], step)
    for mine, theirs in [
        (ours.players.average, plain.average),
        (ours.players.discriminator, plain.discriminator),
    ]:
        moved = theirs.state_dict().values()
        for (name, weight), other in zip(mine.state_dict().items(), moved, strict=True):
            if not name.endswith("score.bias"):  # cancels in the relativistic loss
                torch.testing.assert_close(weight, other, rtol=2e-3, atol=2e-5)
