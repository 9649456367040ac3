"""Parameter counts of models/ against published totals, within 2 % (active ones below 3 B, printed with two digits: 2.5 %).

`parameters` counts every weight of the language model, a table that embedding and LM head share once. `active_parameters` counts
everything a token passes, embedding and LM head included, as Mixtral's 12.9 B and Qwen3's 3.3 B do. `EMBEDDING` marks those whose
vendors leave out the input embedding, a lookup without arithmetic (gpt-oss, DeepSeek-V2-Lite).
Not in the table: gpt3-xl (measured with a hidden size of 3072, though its name says 1.3 B), and where nothing is published to two
digits: gpt-7b to gpt-65b, smallthinker-4b-a0.6b, and what of GLaM, Grok-1 and SmallThinker is active.
"""

from __future__ import annotations

import pytest

from hwsim.catalogue import load_model

ALL, EMBEDDING = 0, 1

# (name, billions of parameters, billions active or None where dense, what "active" leaves out)
PUBLISHED = [
    ("llama-7b", 6.74, None, ALL),
    ("llama-13b", 13.02, None, ALL),
    ("llama-30b", 32.5, None, ALL),
    ("llama-65b", 65.2, None, ALL),
    ("llama-2-7b", 6.74, None, ALL),
    ("llama-2-13b", 13.02, None, ALL),
    ("llama-2-70b", 68.98, None, ALL),
    ("codellama-34b", 33.7, None, ALL),
    ("llama-3-8b", 8.03, None, ALL),
    ("llama-3-70b", 70.6, None, ALL),
    ("llama-3.1-8b", 8.03, None, ALL),
    ("llama-3.1-70b", 70.6, None, ALL),
    ("llama-3.1-405b", 405.9, None, ALL),
    ("mistral-7b", 7.24, None, ALL),
    ("mixtral-8x7b", 46.7, 12.9, ALL),
    ("mixtral-8x22b", 141.0, 39.0, ALL),
    ("dbrx", 132.0, 36.0, ALL),
    ("grok-1", 314.0, None, ALL),
    ("glam-143b", 143.0, None, ALL),
    ("olmoe-1b-7b", 6.92, 1.28, ALL),
    ("phi-mini-moe", 7.6, 2.4, ALL),
    ("deepseek-v2", 236.0, 21.0, ALL),
    ("deepseek-v2-lite", 15.7, 2.4, EMBEDDING),
    ("deepseek-v3", 671.0, 37.0, ALL),
    ("kimi-k2.5", 1026.0, 32.9, ALL),
    ("gpt-oss-20b", 20.9, 3.6, EMBEDDING),
    ("gpt-oss-120b", 116.8, 5.1, EMBEDDING),
    ("qwen-72b", 72.3, None, ALL),
    ("qwen2.5-0.5b", 0.494, None, ALL),
    ("qwen2.5-1.5b", 1.54, None, ALL),
    ("qwen2.5-3b", 3.09, None, ALL),
    ("qwen2.5-7b", 7.62, None, ALL),
    ("qwen2.5-72b", 72.7, None, ALL),
    ("qwen3-1.7b", 1.72, None, ALL),
    ("qwen3-32b", 32.8, None, ALL),
    ("qwen3-30b-a3b", 30.5, 3.3, ALL),
    ("qwen3-235b-a22b", 235.0, 22.0, ALL),
    ("smallthinker-21b-a3b", 21.5, None, ALL),
    ("opt-125m", 0.125, None, ALL),
    ("opt-1.3b", 1.316, None, ALL),
    ("opt-2.7b", 2.65, None, ALL),
    ("opt-6.7b", 6.66, None, ALL),
    ("opt-13b", 12.85, None, ALL),
    ("opt-30b", 29.97, None, ALL),
    ("opt-66b", 65.7, None, ALL),
    ("opt-175b", 175.0, None, ALL),
    ("gpt2", 0.124, None, ALL),
    ("gpt2-medium", 0.355, None, ALL),
    ("gpt2-large", 0.774, None, ALL),
    ("gpt2-xl", 1.558, None, ALL),
    ("gpt3-2.7b", 2.65, None, ALL),
    ("gpt3-175b", 175.0, None, ALL),
    ("gpt-j-6b", 6.05, None, ALL),
    ("bert-base", 0.110, None, ALL),
    ("bert-large", 0.335, None, ALL),
    ("bloom-176b", 176.25, None, ALL),
    ("falcon-7b", 6.92, None, ALL),
    ("falcon-40b", 41.3, None, ALL),
    ("falcon-180b", 180.0, None, ALL),
    ("phi-2", 2.78, None, ALL),
    ("persimmon-8b", 9.4, None, ALL),
    ("internlm-20b", 20.1, None, ALL),
    ("gemma-2b", 2.51, None, ALL),
    ("olmo-7b", 6.89, None, ALL),
]


@pytest.mark.parametrize(("name", "total", "active", "without"), PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_parameters_are_as_published(name: str, total: float, active: float | None, without: int):
    model = load_model(name)
    assert model.parameters / 1e9 == pytest.approx(total, rel=0.02)
    if active is None:
        return
    left_out = without * model.vocab * model.hidden
    assert (model.active_parameters - left_out) / 1e9 == pytest.approx(active, rel=0.025 if active < 3 else 0.02)


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [("mixtral-8x7b", 93.4), ("glam-143b", 285.6), ("grok-1", 631.0), ("opt-66b", 131.4), ("llama-3-70b", 141.1)],
)
def test_sixteen_bit_weights_of_the_duplex_paper(name: str, gigabytes: float):
    assert 2 * load_model(name).parameters / 1e9 == pytest.approx(gigabytes, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "per_token"),
    [
        ("mixtral-8x7b", 131072), ("glam-143b", 524288), ("grok-1", 262144), ("opt-66b", 2359296), ("llama-3-70b", 327680),
        ("mixtral-8x22b", 229376), ("dbrx", 163840), ("deepseek-v3", 70272), ("qwen2.5-72b", 327680), ("llama-3.1-405b", 516096),
        ("llama-2-7b", 524288), ("vicuna-13b", 819200), ("llama-3-8b", 131072),
    ],
)  # fmt: skip
def test_sixteen_bit_kv_bytes_per_token_are_exact(name: str, per_token: int):
    assert 2 * load_model(name).kv_elements_per_token() == per_token
