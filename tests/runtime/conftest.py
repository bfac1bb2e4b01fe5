"""A tokenizer small enough to read, and jobs made of the bundle's own emission."""

from __future__ import annotations

from typing import Any

import pytest

TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<s>system\nBe brief.</s>\n{% endif %}"
    "<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return make_tokenizer()


def make_tokenizer() -> Any:
    """One token a character, with special tokens of a whole tag: every mask can be checked by eye."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = [chr(c) for c in range(32, 127)] + ["\n", "é", "[UNK]"]
    inner = Tokenizer(models.WordLevel({c: i for i, c in enumerate(characters)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    inner.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="[UNK]")
    made.chat_template = TEMPLATE
    return made
