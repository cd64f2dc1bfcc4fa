"""Models as folders: everything comes back, and what is damaged is refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fusewire.errors import InputError
from fusewire.models.language import (
    Encoder,
    Recurrent,
    RecurrentConfig,
    Transformer,
    TransformerConfig,
)

TOKENS = torch.tensor([[1, 2, 3, 4]])
STYLES = [
    TransformerConfig(context=8, layers=2, heads=2, embed_dim=16),
    TransformerConfig(
        context=8, layers=1, heads=2, embed_dim=16, tied=False, positions="rotary", norm="rms"
    ),
]


@pytest.mark.parametrize("config", STYLES)
def test_a_transformer_comes_back(config: TransformerConfig, tmp_path: Path) -> None:
    model = Transformer(config, 10).eval()
    model.save_pretrained(tmp_path / "deep" / "model")
    loaded = Transformer.from_pretrained(tmp_path / "deep" / "model").eval()
    assert (loaded.config, loaded.vocab_size) == (config, 10)
    assert torch.equal(loaded(TOKENS)[0], model(TOKENS)[0])


@pytest.mark.parametrize("kind", ["recurrent", "transformer", "encoder"])
def test_tied_weights_stay_tied(kind: str, tmp_path: Path) -> None:
    model: Recurrent | Transformer | Encoder
    if kind == "recurrent":
        model = Recurrent(RecurrentConfig(embed_dim=8, hidden_size=8), 10)
    else:
        model = {"transformer": Transformer, "encoder": Encoder}[kind](STYLES[0], 10)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)

    def logits(of: Recurrent | Transformer | Encoder) -> torch.Tensor:
        found = of(TOKENS)
        return found if isinstance(found, torch.Tensor) else found[0]

    assert torch.equal(logits(loaded), logits(model))
    logits(loaded).logsumexp(-1).sum().backward()
    assert loaded.embedding.weight.grad is not None
    assert loaded.embedding.weight.grad[9].any(), "a token that is only predicted learns nothing"
    loaded.embedding.weight.data.zero_()
    assert not logits(loaded).any()


def test_another_kind_is_refused(tmp_path: Path) -> None:
    Transformer(STYLES[0], 10).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="of kind 'transformer', expected 'encoder'"):
        Encoder.from_pretrained(tmp_path)


def test_damage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no model"):
        Transformer.from_pretrained(tmp_path)
    Transformer(STYLES[0], 10).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for damage, message in [
        ("[", "is damaged"),
        ("[]", "expected a JSON object"),
        (json.dumps(config | {"vocab_size": "ten"}), "vocab_size is 'ten'"),
        (json.dumps(config | {"vocab_size": 11}), "another model's"),
        (json.dumps(config | {"config": {"layers": 0}}), "layers must be at least 1"),
    ]:
        (tmp_path / "config.json").write_text(damage)
        with pytest.raises(InputError, match=message):
            Transformer.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="are damaged"):
        Transformer.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="holds no weights"):
        Transformer.from_pretrained(tmp_path)
