"""GPT-2's and Llama's weights give the logits that transformers gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fusewire.errors import InputError
from fusewire.models.language import from_huggingface, generate, load_huggingface

transformers = pytest.importorskip("transformers")

VOCAB_SIZE = 61


def gpt2(**sizes: object):
    config = transformers.GPT2Config(
        **{
            "vocab_size": VOCAB_SIZE,
            "n_positions": 24,
            "n_embd": 32,
            "n_layer": 3,
            "n_head": 4,
            "bos_token_id": 0,
            "eos_token_id": 0,
            **sizes,
        }
    )
    return transformers.GPT2LMHeadModel(config)


def llama(**sizes: object):
    config = transformers.LlamaConfig(
        **{
            "vocab_size": VOCAB_SIZE,
            "max_position_embeddings": 24,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            **sizes,
        }
    )
    return transformers.LlamaForCausalLM(config)


MODELS = {
    "gpt2": lambda: gpt2(),
    "gpt2 of its own width": lambda: gpt2(n_inner=40, layer_norm_epsilon=1e-3),
    "llama": lambda: llama(),
    "llama with biases": lambda: llama(attention_bias=True, mlp_bias=True),
    "llama tied": lambda: llama(
        tie_word_embeddings=True,
        num_key_value_heads=4,
        head_dim=10,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    ),
    "llama with slower angles": lambda: llama(
        rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
    ),
    "llama 3.1": lambda: llama(
        head_dim=16,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 1e4,
            "factor": 8.0,
            "original_max_position_embeddings": 16,
            "low_freq_factor": 0.5,  # of 8 angles some are kept, some slower, some between
            "high_freq_factor": 2.0,
        },
    ),
    "llama with angles slower beyond its context": lambda: llama(
        rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    ),
    "llama by YaRN": lambda: llama(head_dim=16, rope_parameters=yarn()),
    "llama by YaRN, told everything": lambda: llama(
        head_dim=16,
        rope_parameters=yarn(
            beta_fast=6.0, beta_slow=0.5, truncate=False, mscale=0.7, mscale_all_dim=0.4
        ),
    ),
    "llama by YaRN with scores of its own size": lambda: llama(
        head_dim=16, rope_parameters=yarn(attention_factor=1.3, factor=2.0)
    ),
}


def yarn(**options):
    return {
        "rope_type": "yarn",
        "rope_theta": 1e2,
        "factor": 8.0,
        "original_max_position_embeddings": 16,
        **options,
    }


def random_model(name: str):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    for parameter in model.parameters():  # norms and biases too, which begin as ones and zeros
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    theirs = random_model(name)
    theirs.save_pretrained(tmp_path)
    ours = load_huggingface(tmp_path).eval()
    tokens = torch.randint(VOCAB_SIZE, (2, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(tokens).logits
        torch.testing.assert_close(ours(tokens)[0], expected, rtol=2e-4, atol=2e-4)
        direct = from_huggingface(theirs.config.to_dict(), theirs.state_dict()).eval()
        torch.testing.assert_close(direct(tokens)[0], expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_weights_may_be_bfloat16_in_several_files(name: str, tmp_path: Path) -> None:
    theirs = random_model(name)
    for parameter in theirs.parameters():  # and not the angles of its positions
        parameter.data = parameter.data.bfloat16()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert not (tmp_path / "model.safetensors").exists()
    tokens = torch.arange(24)[None]
    with torch.no_grad():
        expected = theirs.float()(tokens).logits
        ours = load_huggingface(tmp_path).eval()(tokens)[0]
    torch.testing.assert_close(ours, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_greedy_generation_is_that_of_transformers(name: str) -> None:
    theirs = random_model(name)
    ours = from_huggingface(theirs.config.to_dict(), theirs.state_dict())
    prompt = torch.randint(1, VOCAB_SIZE, (2, 5), generator=torch.Generator().manual_seed(1))
    expected = theirs.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=15,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    assert torch.equal(generate(ours, prompt, length=15, temperature=0.0), expected)


def test_what_ours_cannot_do_is_refused() -> None:
    described = gpt2().config.to_dict()
    with pytest.raises(InputError, match="of type 'bert', expected gpt2 or llama"):
        from_huggingface({"model_type": "bert"}, {})
    with pytest.raises(InputError, match="activation_function must be 'gelu_new'"):
        from_huggingface(described | {"activation_function": "relu"}, {})
    with pytest.raises(InputError, match=r"lacks 'wte\.weight'"):
        from_huggingface(described, {})
    scaled = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(InputError, match=r"rope_type must be 'default', .* has 'longrope'"):
        from_huggingface(llama().config.to_dict() | {"rope_parameters": scaled}, {})
