"""Parameter counts against published totals, and their split."""

from __future__ import annotations

import pytest
from axoc.errors import UserError
from axoc.facts.models import lookup_model
from axoc.facts.parameters import count_parameters, linear_shapes, lora_parameters, targeted_experts, targeted_linears
from axoc.ir.facts import ModelFacts

PUBLISHED = {
    # total parameters of the published safetensors, or of the model cards where those give them exactly
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "meta-llama/Meta-Llama-3-8B": 8_030_261_248,
    "meta-llama/Meta-Llama-3-70B": 70_553_706_496,
    "meta-llama/Llama-3.1-405B": 405_853_388_800,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
    "mistralai/Mistral-Nemo-Base-2407": 12_247_782_400,
    "mistralai/Mixtral-8x7B-v0.1": 46_702_792_704,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-72B": 72_706_203_648,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
    "google/gemma-2-2b": 2_614_341_888,
    "google/gemma-3-1b-it": 999_885_952,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
    "microsoft/phi-4": 14_659_507_200,
    "tiiuae/falcon-7b": 6_921_720_704,
    "EleutherAI/pythia-160m": 162_322_944,
    "EleutherAI/gpt-neox-20b": 20_554_567_680,
    "allenai/OLMo-2-1124-7B": 7_298_617_344,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "deepseek-ai/DeepSeek-V2-Lite": 15_706_484_224,
    "deepseek-ai/DeepSeek-V3": 671_026_404_352,
    "openai-community/gpt2": 124_439_808,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1_100_048_384,
}


def model(model_id: str) -> ModelFacts:
    return lookup_model(model_id, None, None, "auto")[0]


@pytest.mark.parametrize(("model_id", "total"), PUBLISHED.items())
def test_published_totals(model_id: str, total: int) -> None:
    assert count_parameters(model(model_id)).total == total


def test_split_of_llama_3_8b() -> None:
    count = count_parameters(model("meta-llama/Meta-Llama-3-8B"))
    assert count.embedding == count.lm_head == 128256 * 4096
    assert count.attention_per_layer == 4096 * (4096 + 1024 + 1024 + 4096)
    assert count.mlp_per_layer == 3 * 4096 * 14336
    assert (count.norms_per_layer, count.final_norm, count.biases) == (8192, 4096, 0)
    assert (count.dense_layers, count.moe_layers) == (32, 0)
    assert count.largest_block == count.dense_block


def test_tied_head_is_counted_once() -> None:
    assert count_parameters(model("meta-llama/Llama-3.2-1B")).lm_head == 0


def test_split_of_experts() -> None:
    count = count_parameters(model("deepseek-ai/DeepSeek-V3"))
    assert (count.dense_layers, count.moe_layers) == (3, 58)
    assert count.experts_per_layer == 256 * 3 * 7168 * 2048
    assert (count.router_per_layer, count.shared_experts_per_layer) == (256 * 7168, 3 * 7168 * 2048)
    assert count.mlp_per_layer == 3 * 7168 * 18432
    assert count.largest_block == count.moe_block
    mixtral = count_parameters(model("mistralai/Mixtral-8x7B-v0.1"))
    assert (mixtral.mlp_per_layer, mixtral.dense_layers) == (0, 0)


def test_biases_and_positions_of_gpt2() -> None:
    count = count_parameters(model("gpt2"))
    assert count.positions == 1024 * 768
    assert count.biases == 12 * (4 * 768 + 5 * 768)
    assert count.norms_per_layer == 2 * 2 * 768


@pytest.mark.parametrize(
    ("model_id", "names"),
    [
        ("meta-llama/Llama-3.1-8B", "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"),
        ("microsoft/phi-4", "qkv_proj o_proj gate_up_proj down_proj"),
        ("tiiuae/falcon-40b", "query_key_value dense dense_h_to_4h dense_4h_to_h"),
        ("gpt2", "c_attn c_proj c_fc c_proj"),
        ("mistralai/Mixtral-8x7B-v0.1", "q_proj k_proj v_proj o_proj"),
        (
            "deepseek-ai/DeepSeek-V2-Lite",
            "q_proj kv_a_proj_with_mqa kv_b_proj o_proj gate_proj up_proj down_proj gate_proj up_proj down_proj",
        ),
    ],
)
def test_linear_layers_have_transformers_names(model_id: str, names: str) -> None:
    assert [shape.name for shape in linear_shapes(model(model_id))] == names.split()


def test_lora_counts() -> None:
    llama = model("meta-llama/Meta-Llama-3-8B")
    assert lora_parameters(llama, 16, "all-linear") == 41_943_040
    assert lora_parameters(llama, 8, ("q_proj", "v_proj")) == 3_407_872
    dora = lora_parameters(llama, 16, ("q_proj",), use_dora=True) - lora_parameters(llama, 16, ("q_proj",))
    assert dora == 32 * 4096


def test_targets_match_as_in_peft() -> None:
    assert len(targeted_linears(model("gpt2"), ("c_proj",))) == 2
    assert [s.name for s in targeted_linears(model("gpt2"), ("attn.c_proj",))] == ["c_proj"]


def test_targets_that_the_model_lacks_are_refused_together() -> None:
    with pytest.raises(UserError) as caught:
        lora_parameters(model("gpt2"), 8, ("q_proj", "c_attn", "c_porj"))
    assert len(caught.value.diagnostics) == 2
    assert "did you mean c_proj?" in caught.value.render()


def test_all_linear_reaches_experts_and_router_as_in_peft() -> None:
    mixtral = model("mistralai/Mixtral-8x7B-v0.1")
    assert [t.name for t in targeted_experts(mixtral, "all-linear")] == ["gate", "gate_up_proj", "down_proj"]
    experts = 8 * (2 * 16 * (4096 + 2 * 14336) + 16 * (14336 + 4096)) + 16 * (4096 + 8)
    attention = lora_parameters(mixtral, 16, ("q_proj", "k_proj", "v_proj", "o_proj"))
    assert lora_parameters(mixtral, 16, "all-linear") == attention + 32 * experts
    assert targeted_experts(mixtral, ("q_proj",)) == ()


def test_names_of_experts_shadow_those_of_dense_layers() -> None:
    deepseek = model("deepseek-ai/DeepSeek-V2-Lite")
    assert {s.part for s in targeted_linears(deepseek, "all-linear")} == {"attention"}
    assert targeted_linears(deepseek, ("down_proj",)) == ()
    assert [t.name for t in targeted_experts(deepseek, ("down_proj",))] == ["down_proj"]


@pytest.mark.parametrize(
    ("model_id", "targets", "words"),
    [
        ("mistralai/Mixtral-8x7B-v0.1", ("gate_up_proj",), "no layer 'gate_up_proj'"),
        ("mistralai/Mixtral-8x7B-v0.1", ("w1",), "add w3"),
        ("deepseek-ai/DeepSeek-V3", ("up_proj", "o_proj"), "add gate_proj"),
        ("gpt2", "c_attn", "fits the path of no linear layer"),
    ],
)
def test_targets_that_peft_refuses(model_id: str, targets: str | tuple[str, ...], words: str) -> None:
    with pytest.raises(UserError) as caught:
        lora_parameters(model(model_id), 8, targets)
    assert words in caught.value.render()


def test_dora_on_experts_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        lora_parameters(model("mistralai/Mixtral-8x7B-v0.1"), 8, "all-linear", use_dora=True)
    assert "targets: [q_proj, k_proj, v_proj, o_proj]" in caught.value.render()


def test_falcon_linears_are_left_alone_by_bitsandbytes() -> None:
    assert not any(s.quantizable for s in linear_shapes(model("tiiuae/falcon-7b")))
    assert all(s.quantizable for s in linear_shapes(model("gpt2")))
