"""Makes gpu-model/ (random weights of config.json, a tokenizer of characters) and data.jsonl (rows of full length)."""

import json
import random
import sys

import torch
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def make_weights(folder: str) -> None:
    torch.manual_seed(0)
    with open("config.json", encoding="utf-8") as file:
        values = json.load(file)
    kind = values.pop("model_type")
    for key in ("architectures", "torch_dtype", "dtype"):
        values.pop(key, None)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        config = AutoConfig.for_model(kind, **values)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)


def make_tokenizer(folder: str) -> None:
    characters = [chr(c) for c in range(32, 127)] + ["\n", "[UNK]"]
    inner = Tokenizer(models.WordLevel({c: i for i, c in enumerate(characters)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    inner.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="[UNK]")
    made.chat_template = TEMPLATE
    made.save_pretrained(folder)


def make_rows(path: str) -> None:
    random.seed(0)
    with open(path, "w", encoding="utf-8") as file:
        for i in range(140):
            row = {"question": f"Count from {i}.", "answer": " ".join(str(i + j) for j in range(700))}
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    make_weights("gpu-model")
    make_tokenizer("gpu-model")
    make_rows("data.jsonl")
    sys.exit(0)
