"""Existing models and our trainings on every device of this machine."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import fusewire as fw
from fusewire.models.gan import ConvolutionalConfig, MlpConfig, Penalty, ResidualConfig
from fusewire.models.language import RecurrentConfig, TransformerConfig
from fusewire.training.adversarial import loop as adversarial
from fusewire.training.adversarial.config import GanConfig
from fusewire.training.adversarial.data import DataConfig
from fusewire.training.adversarial.samples import sample
from fusewire.training.metrics import read_metrics
from fusewire.training.sequence import language
from fusewire.training.sequence.config import LanguageConfig, SamplingConfig


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent = nn.LSTM(6, 8, bidirectional=True, batch_first=True)
        self.step = nn.GRUCell(16, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        hidden, _ = self.recurrent(x)
        states = torch.stack([self.step(hidden[:, time]) for time in range(x.shape[1])], 1)
        return self.attention(states, states, states)[0]


def test_a_fused_model_is_the_model(device):
    torch.manual_seed(0)
    plain = Tagger().to(device)
    fused = copy.deepcopy(plain)
    fw.fuse(fused, linear=True)
    x = torch.randn(3, 7, 6).to(device)
    outputs = [model(x) for model in (plain, fused)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-4)
    gradients = [
        torch.autograd.grad(output.pow(2).sum(), list(model.parameters()))
        for output, model in zip(outputs, (plain, fused), strict=True)
    ]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-3)


def test_enabling_leaves_other_devices_alone(device):
    x = torch.randn(1, 2, 9, 8).to(device)
    expected = functional.scaled_dot_product_attention(x, x, x, is_causal=True)
    with fw.enabled():
        found = functional.scaled_dot_product_attention(x, x, x, is_causal=True)
    exact = 0 if device != "cpu" else 1e-5
    torch.testing.assert_close(found, expected, rtol=exact, atol=exact)


@pytest.mark.parametrize("window", [None, 5])
def test_hugging_face_models(device, window):
    transformers = pytest.importorskip("transformers")
    import fusewire.dropin.transformers  # noqa: F401

    config = transformers.MistralConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=window,
    )
    torch.manual_seed(0)
    eager = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    ours = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="fusewire")
    ours.load_state_dict(eager.state_dict())
    tokens = torch.randint(1, 50, (2, 12)).to(device)
    mask = torch.ones_like(tokens)
    mask[0, :4] = 0
    given = {"input_ids": tokens, "attention_mask": mask}
    logits = [model.to(device).eval()(**given).logits[mask.bool()] for model in (eager, ours)]
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-4, atol=1e-4)
    texts = [
        model.generate(**given, max_new_tokens=6, do_sample=False, pad_token_id=0)
        for model in (eager, ours)
    ]
    assert torch.equal(*texts)


TEXT = "the cat sat on the mat and the dog sat on the log; " * 60


@pytest.mark.parametrize(
    "model",
    [
        TransformerConfig(context=16, layers=1, heads=2, embed_dim=16),
        RecurrentConfig(cell="gru", layers=1, embed_dim=16, hidden_size=16),
        RecurrentConfig(cell="lstm", layers=2, embed_dim=16, hidden_size=16, dropout=0.1),
    ],
    ids=["transformer", "gru", "lstm"],
)
def test_language_models_learn_and_go_on(model, device, tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    config = LanguageConfig(
        model=model,
        data=text,
        device=device,
        steps=60,
        batch=4,
        context=16,
        learning_rate=0.02,
        warmup_steps=3,
        validate_every=30,
        validation_tokens=128,
        save_every=30,
        sampling=SamplingConfig(length=5),
    )
    language.train(dataclasses.replace(config, steps=30), tmp_path / "run")
    language.resume(tmp_path / "run", steps=60)
    losses = [row["loss"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    "model",
    [
        MlpConfig(noise_size=6, hidden_sizes=(8, 8)),
        ConvolutionalConfig(noise_size=6),
        ResidualConfig(noise_size=6),
    ],
    ids=["mlp", "convolutional", "residual"],
)
def test_gans_learn_and_go_on(model, device, tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 1, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", pixels)
    config = GanConfig(
        data=DataConfig("images", tmp_path / "data.npz"),
        model=model,
        penalties=(Penalty("real", 0.3),),
        device=device,
        steps=4,
        batch=4,
        log_every=1,
        checkpoint_every=2,
    )
    adversarial.train(config, tmp_path / "run")
    adversarial.resume(tmp_path / "run", 6)
    rows = list(read_metrics(tmp_path / "run" / "metrics.jsonl"))
    assert rows[-1]["step"] == 6
    assert sample(tmp_path / "run", count=2).exists()
