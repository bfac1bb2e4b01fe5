"""Models that see, small enough for seconds: random weights, byte-level tokens, and rows about images of one color."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}IMAGE{% else %}{{ p['text'] }}{% endif %}{% endfor %}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
COLORS = {"red": (200, 10, 10), "green": (10, 200, 10), "blue": (10, 10, 200)}
TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
VISION = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28,
}  # fmt: skip


def llava(folder: Path) -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokens = tokenizer("<image>")
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    told = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    LlavaProcessor(pictures, tokens, chat_template=TEMPLATE.replace("IMAGE", "<image>"), **told).save_pretrained(folder)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION, patch_size=14),
        text_config=LlamaConfig(**TEXT, vocab_size=len(tokens)),
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
    )
    return saved(LlavaForConditionalGeneration, config, folder)


def gemma3(folder: Path) -> Any:
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3Processor,
        Gemma3TextConfig,
        SiglipVisionConfig,
    )
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    names = {"boi_token": "<start_of_image>", "image_token": "<image_soft_token>", "eoi_token": "<end_of_image>"}
    tokens = tokenizer(*names.values(), extra_special_tokens=names)
    pictures = Gemma3ImageProcessorPil(size={"height": 28, "width": 28})
    template = TEMPLATE.replace("IMAGE", "<start_of_image>")
    Gemma3Processor(pictures, tokens, image_seq_length=4, chat_template=template).save_pretrained(folder)
    ids = {name: tokens.convert_tokens_to_ids(token) for name, token in names.items()}
    config = Gemma3Config(
        text_config=Gemma3TextConfig(**TEXT, vocab_size=len(tokens), head_dim=8, sliding_window=64),
        vision_config=SiglipVisionConfig(**VISION, patch_size=7),
        mm_tokens_per_image=4,
        image_token_index=ids["image_token"],
        boi_token_index=ids["boi_token"],
        eoi_token_index=ids["eoi_token"],
    )
    return saved(Gemma3ForConditionalGeneration, config, folder)


MODELS = {"llava": llava, "gemma3": gemma3}


def saved(kind: Any, config: Any, folder: Path) -> Any:
    import torch

    torch.manual_seed(0)
    model = kind(config)
    model.save_pretrained(folder)
    return model


def tokenizer(*specials: str, **named: Any) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    every = ["<pad>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", *specials]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=every, initial_alphabet=alphabet)
    made.train_from_iterator(["a red, a green and a blue square"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<|end|>", **named)


def png(color: str, width: int = 24, height: int = 20) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (width, height), COLORS[color]).save(stream, "PNG")
    return stream.getvalue()


def damaged(content: bytes) -> bytes:
    """Its header is whole, and its pixels are not."""
    return content[:50] + bytes([content[50] ^ 255]) + content[51:]


def rows(folder: Path, count: int = 24) -> Path:
    """Half of the images lie beside the data, the others in it; the last row's is damaged."""
    found = []
    (folder / "images").mkdir()
    for index in range(count):
        color = list(COLORS)[index % len(COLORS)]
        content = png(color, 20 + index, 40 - index)
        image = f"images/{index}.png"
        if index % 2:
            (folder / image).write_bytes(content)
        else:
            image = "data:image/png;base64," + base64.b64encode(content).decode()
        asked = {"role": "user", "content": f"<image>Which color is {index}?"}
        found.append({"messages": [asked, {"role": "assistant", "content": color}], "images": [image]})
    (folder / "images/damaged.png").write_bytes(damaged(png("red")))
    found.append(found[-1] | {"images": ["images/damaged.png"]})
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return folder / "data.jsonl"
