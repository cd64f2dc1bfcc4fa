"""Hugging Face's models, made tiny from their configurations, against their own attention."""

import copy
import pickle
import sys

import pytest
import torch

transformers = pytest.importorskip("transformers")

import fusewire as fw  # noqa: E402
import fusewire.dropin.transformers as dropin  # noqa: E402

SIZES = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED = SIZES | {"num_key_value_heads": 2}
NARROW = GROUPED | {"head_dim": 8, "sliding_window": 4}
PAIR = {
    "vocab_size": 40,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
}
# Weights of a trained size: with factor 1 scores are so large that eager attention itself is
# further from float64 than the tests allow.
T5 = {"vocab_size": 40, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
T5 |= {"initializer_factor": 0.5}

LATENT = SIZES | {
    "num_key_value_heads": 4,
    "head_dim": 4,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
}
CHOSEN = {"index_n_heads": 2, "index_head_dim": 8}

DECODERS = {
    "GPT2LMHeadModel": {"vocab_size": 40, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "LlamaForCausalLM": GROUPED,
    "MistralForCausalLM": GROUPED | {"sliding_window": 4},
    "Gemma2ForCausalLM": NARROW | {"attn_logit_softcapping": 5.0},
    "GptOssForCausalLM": NARROW | {"num_local_experts": 2, "num_experts_per_tok": 1},
    "BloomForCausalLM": {"vocab_size": 40, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    # It looks its layer's class up in a table of its own.
    "FalconForCausalLM": SIZES | {"num_kv_heads": 2},
    # Keys are wider than values.
    "DeepseekV3ForCausalLM": LATENT,
    # Each query chooses keys, and tells them apart from the mask where attention is not the
    # library's; the other does not know PyTorch's attention.
    "DeepseekV32ForCausalLM": LATENT | CHOSEN | {"index_topk": 3},
    "HYV4ForCausalLM": LATENT | CHOSEN | {"index_topk": 3, "pad_token_id": 0},
    # It extends masks by biases, and knows no PyTorch's attention.
    "DeepseekV4ForCausalLM": NARROW
    | {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
}
ENCODERS = {
    "BertModel": SIZES,
    # Without a mask it is not causal, though its layers do not say so.
    "SplinterModel": SIZES | {"question_token_id": 3},
}
ENCODER_DECODERS = {
    "T5ForConditionalGeneration": T5 | {"decoder_start_token_id": 0},
    "BartForConditionalGeneration": PAIR | {"max_position_embeddings": 64},
    # Its decoder's layers do not say that they are causal.
    "PegasusXForConditionalGeneration": PAIR
    | {"max_position_embeddings": 64, "block_size": 8, "num_global_tokens": 4},
}
IMAGES = {"ViTModel": SIZES | {"image_size": 8, "patch_size": 2}}
SPEECH = {
    "WhisperForConditionalGeneration": PAIR
    | {
        "num_mel_bins": 8,
        "max_source_positions": 16,
        "max_target_positions": 32,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 3,
        "begin_suppress_tokens": None,
    }
}


def models(name, sizes):
    """The model with its own attention, and the same with ours."""
    cls = getattr(transformers, name)
    torch.manual_seed(0)
    config = cls.config_class(**sizes)
    config._attn_implementation = "eager"
    eager = cls(config).eval()
    with torch.no_grad():
        for parameter in eager.parameters():
            parameter.mul_(3)  # Attention shall depend on what it is given.
    other = copy.deepcopy(config)
    other._attn_implementation = "fusewire"
    ours = cls(other).eval()
    ours.load_state_dict(eager.state_dict())
    return eager, ours


def compare(eager, ours, kept=None, **inputs):
    """Outputs (those that `kept` says) and the gradients of all parameters."""
    results = []
    for model in (eager, ours):
        output = model(**inputs)
        output = output.logits if hasattr(output, "logits") else output.last_hidden_state
        output = output if kept is None else output[kept]
        model.zero_grad()
        (output * torch.linspace(-1, 1, output.numel()).reshape(output.shape)).sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append((output.detach(), gradients))
    (expected, expected_gradients), (output, gradients) = results
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    assert gradients.keys() == expected_gradients.keys()
    largest = max(gradient.abs().max().item() for gradient in expected_gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, expected_gradients[name], rtol=1e-3, atol=2e-6 * largest, msg=name
        )


def generate(model, *inputs, **options):
    return model.generate(
        *inputs, max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=None, **options
    )


def padded(side):
    tokens = torch.randint(3, 39, (3, 10), generator=torch.Generator().manual_seed(1))
    there = torch.ones(3, 10, dtype=torch.long)
    if side != "none":
        there[1, : 4 if side == "left" else None] = 0
        if side == "right":
            there[1] = torch.tensor([1] * 6 + [0] * 4)
    return tokens, there


@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("name", DECODERS)
def test_decoders(name, side):
    eager, ours = models(name, DECODERS[name])
    tokens, there = padded(side)
    compare(eager, ours, there.bool(), input_ids=tokens, attention_mask=there)
    if side != "right":
        expected = generate(eager, tokens, attention_mask=there)
        assert torch.equal(generate(ours, tokens, attention_mask=there), expected)


def test_blocks_of_keys_are_chosen():
    blocks = CHOSEN | {"index_block_size": 2, "index_topk_blocks": 2}
    kinds = {"layer_types": ["full_attention", "minimax_m3_sparse"]}
    kinds["mlp_layer_types"] = ["dense", "dense"]
    eager, ours = models("MiniMaxM3VLForCausalLM", GROUPED | blocks | kinds | {"head_dim": 8})
    tokens, there = padded("right")
    compare(eager, ours, there.bool(), input_ids=tokens, attention_mask=there)
    assert torch.equal(generate(ours, tokens), generate(eager, tokens))


@pytest.mark.parametrize("kept", [1, 3])
def test_the_last_layers_may_see_the_last_queries_alone(kept):
    sizes = NARROW | {"num_hidden_layers": 4, "num_kv_shared_layers": 2, "global_head_dim": 8}
    sizes |= {"layer_types": ["sliding_attention", "full_attention"] * 2}
    sizes |= {"vocab_size_per_layer_input": 40, "hidden_size_per_layer_input": 4}
    eager, ours = models("Gemma4ForCausalLM", sizes)
    tokens, _ = padded("none")
    expected, actual = (model(tokens, logits_to_keep=kept).logits for model in (eager, ours))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("name", ENCODERS)
def test_encoders(name, side):
    tokens, there = padded(side)
    eager, ours = models(name, ENCODERS[name])
    compare(eager, ours, there.bool(), input_ids=tokens, attention_mask=there)


@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_encoder_decoders(name, side):
    eager, ours = models(name, ENCODER_DECODERS[name])
    tokens, there = padded(side)
    compare(eager, ours, input_ids=tokens, attention_mask=there, decoder_input_ids=tokens[:, :7])
    expected = generate(eager, tokens, attention_mask=there)
    assert torch.equal(generate(ours, tokens, attention_mask=there), expected)


def test_images():
    compare(*models("ViTModel", IMAGES["ViTModel"]), pixel_values=torch.randn(2, 3, 8, 8))


def test_speech():
    eager, ours = models(*next(iter(SPEECH.items())))
    features, tokens = torch.randn(2, 8, 32), torch.randint(3, 39, (2, 7))
    compare(eager, ours, input_features=features, decoder_input_ids=tokens)
    expected = eager.generate(features, max_new_tokens=6)
    assert torch.equal(ours.generate(features, max_new_tokens=6), expected)


def test_it_runs_our_operator_and_can_be_set_later(monkeypatch):
    eager, _ = models("LlamaForCausalLM", GROUPED)
    calls = []
    original = dropin.scaled_dot_product_attention

    def counted(*operands, **options):
        calls.append(options["enable_gqa"])
        return original(*operands, **options)

    monkeypatch.setattr(dropin, "scaled_dot_product_attention", counted)
    tokens, _ = padded("none")
    expected = eager(tokens).logits
    eager.set_attn_implementation("fusewire")
    torch.testing.assert_close(eager(tokens).logits, expected, rtol=1e-4, atol=1e-4)
    assert calls == [True, True]


def test_the_linear_layers_of_gpt2_are_fused():
    eager, ours = models("GPT2LMHeadModel", DECODERS["GPT2LMHeadModel"])
    changed = fw.fuse(ours, linear=True).changed
    assert changed["transformer.h.0.attn.c_attn"] == "Conv1D"
    assert changed["transformer.h.0.mlp.act"] == "NewGELUActivation"
    compare(eager, ours, input_ids=padded("none")[0])


@pytest.mark.parametrize("name", ["gelu_new", "gelu_fast", "gelu_pytorch_tanh"])
def test_activations_are_fused(name):
    config = transformers.BertConfig(**SIZES, hidden_act=name)
    eager = transformers.BertModel(config).eval()
    ours = copy.deepcopy(eager)
    fused = fw.fuse(ours).changed
    kinds = {type(module) for module in eager.modules() if "GELU" in type(module).__name__}
    assert kinds
    assert {kind.__name__ for kind in kinds} <= set(fused.values())
    tokens = padded("none")[0]
    results = []
    for model in (eager, ours):
        output = model(tokens).last_hidden_state
        gradients = torch.autograd.grad(output.square().sum(), [*model.encoder.parameters()])
        results.append([output, *gradients])
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-3)


def test_one_line_changes_attention_as_well():
    config = transformers.BertConfig(**SIZES)
    model = torch.nn.Sequential(transformers.BertModel(config).eval())
    tokens, _ = padded("none")
    expected = model(tokens).last_hidden_state
    report = fw.fuse(model)
    assert report.changed["0"] == "attention"
    assert config._attn_implementation == "fusewire"
    torch.testing.assert_close(model(tokens).last_hidden_state, expected, rtol=1e-4, atol=1e-4)
    assert not fw.fuse(model).changed
    copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    for each in (copied, model):
        assert fw.fuse(each, undo=True).changed["0"] == "attention as before"
        assert each[0].config._attn_implementation == "sdpa"
        assert torch.equal(each(tokens).last_hidden_state, expected)


def test_attention_that_may_be_asked_for_weights_is_left_alone():
    eager, _ = models("LlamaForCausalLM", GROUPED)
    report = fw.fuse(eager, linear=False)
    assert not report.changed
    assert 'its attention is "eager"' in report.left_alone[""]


def test_each_query_may_have_a_sink():
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 5, 8, generator=generator).unbind()
    sinks = torch.randn(2, 4, 5, 1, generator=generator)
    scores = torch.cat([query @ key.mT * 0.3, sinks], dim=-1)
    expected = (scores.softmax(-1)[..., :-1] @ value).transpose(1, 2)
    layer = torch.nn.Tanh()
    output, _ = dropin.attention(
        layer, query, key, value, None, scaling=0.3, is_causal=False, sinks=sinks
    )
    torch.testing.assert_close(output, expected)


def test_a_static_cache_is_longer_than_what_it_holds():
    eager, ours = models("LlamaForCausalLM", GROUPED)
    tokens, _ = padded("none")
    options = {"cache_implementation": "static", "disable_compile": True}
    expected = generate(eager, tokens, **options)
    assert torch.equal(generate(ours, tokens, **options), expected)


def test_dropout_happens_in_training():
    _, ours = models("BertModel", SIZES | {"hidden_dropout_prob": 0.0})
    tokens, _ = padded("none")
    first = ours.train()(tokens).last_hidden_state
    assert not torch.equal(ours(tokens).last_hidden_state, first)


def test_what_a_model_depends_on_and_is_not_served_is_refused(monkeypatch):
    def own(page_table):
        raise AssertionError(f"only its signature is read, but it got {page_table}")

    # As if PyTorch's linear layer came from a model with attention over pages.
    layer, x = torch.nn.Linear(1, 1), torch.ones(1, 1, 2, 4)
    modeling = sys.modules[type(layer).__module__]
    monkeypatch.setattr(modeling, "eager_attention_forward", own, raising=False)
    output, _ = dropin.attention(layer, x, x, x, None, position_ids=x, page_table=None)
    assert output.shape == (1, 2, 1, 4)
    with pytest.raises(ValueError, match="does not serve page_table"):
        dropin.attention(layer, x, x, x, None, page_table=x)


@pytest.mark.parametrize("asked", ["call", "configuration"])
def test_a_model_keeps_no_weights_and_says_so(asked):
    tokens = torch.tensor([[1, 2, 3]])
    _, named = models("LlamaForCausalLM", GROUPED)
    fused = transformers.LlamaForCausalLM(transformers.LlamaConfig(**GROUPED))
    fw.fuse(fused, linear=False)
    for model in (named, fused):
        if asked == "configuration":
            model.config._output_attentions = True
        options = {"output_attentions": True} if asked == "call" else {}
        with pytest.warns(UserWarning, match='keeps no weights; "eager" returns them'):
            assert model(tokens, **options).attentions == ()
