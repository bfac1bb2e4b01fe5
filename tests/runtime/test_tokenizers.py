"""A spec's tokens get rows that are trained and kept, its chat template is the model's, and a plugin may load the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.models import load, tokenizer
from axoc_runtime.models.merge import merge
from axoc_runtime.models.tokenizer import TokenizerPlugin, load_tokenizer
from exports.tiny import run_of, tokenizer_of

from .jobs import LORA, make_job
from .test_adapters import saved

pytestmark = pytest.mark.slow
ADDED = ["<tool>", "</tool>"]
OURS = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"


@pytest.fixture(scope="module", params=[False, True], ids=["apart", "tied"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many rows as its tokenizer has tokens, with embedding and head as two matrices or as one."""
    rows = len(tokenizer_of(False))
    folder = tmp_path_factory.mktemp("base")
    return run_of("llama", folder, vocab_size=rows, tie_word_embeddings=request.param) / "final"


def job_of(folder: Path, base: Path, **changes: Any) -> Any:
    wanted = {"source": None, "type": None, "chat_template": None, "added_tokens": [], "embedding_rows": None}
    adapter = LORA | {"targets": ["q_proj"], "modules_to_save": changes.pop("modules_to_save", [])}
    return make_job(folder, model__id=str(base), adapter=adapter, model__tokenizer=wanted | changes)


def test_added_tokens_get_a_row_that_is_trained_and_kept(base: Path, tmp_path: Path) -> None:
    tied = json.loads((base / "config.json").read_text())["tie_word_embeddings"]
    before, modules = len(tokenizer_of(False)), ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
    job = job_of(tmp_path, base, added_tokens=ADDED, embedding_rows=before + 2, modules_to_save=modules)
    made = load_tokenizer(job)
    assert len(made) == before + 2 and made("a <tool>b</tool>")["input_ids"][-1] == before + 1
    model = load.load_trainable(job, torch.device("cpu"))
    first = model.get_input_embeddings().weight.detach().clone()
    assert first.shape[0] == before + 2
    torch.testing.assert_close(first[before], first[:before].mean(0))
    ids = torch.tensor([made("<tool>abc</tool>")["input_ids"]])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    saved(job, model)
    merge(job)
    final = load.load_base(make_job(tmp_path, model__id=str(job.output / "final")), torch.device("cpu"))
    kept = final.get_input_embeddings().weight  # type: ignore[operator]
    assert kept.shape[0] == before + 2 and not torch.allclose(kept[before], first[before])
    assert (final.get_output_embeddings().weight is kept) == tied
    assert len(load_tokenizer(make_job(tmp_path, model__id=str(job.output / "final")))) == before + 2


def test_a_token_that_is_there_already_or_has_no_row_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match="has </s> already"):
        load_tokenizer(job_of(tmp_path, base, added_tokens=["</s>"]))
    with pytest.raises(RuntimeFailure, match="embedding 10 rows"):
        load_tokenizer(job_of(tmp_path, base, added_tokens=["<tool>"], embedding_rows=10))


def test_the_specs_chat_template_is_kept_with_the_model_and_a_broken_one_is_refused(base: Path, tmp_path: Path) -> None:
    made = load_tokenizer(job_of(tmp_path, base, chat_template=OURS))
    made.save_pretrained(tmp_path / "kept")
    again = type(made).from_pretrained(tmp_path / "kept")
    assert again.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "[user] Hi\n"
    for wrong, told in (("{{ nothing.there }}", "fails on a plain exchange"), ("same for all", "leaves out what")):
        with pytest.raises(RuntimeFailure, match=told):
            load_tokenizer(job_of(tmp_path, base, chat_template=wrong))


class House(TokenizerPlugin):
    families = ("llama",)

    def load(self, arguments: Mapping[str, Any]) -> Any:
        from transformers import AutoTokenizer

        made = AutoTokenizer.from_pretrained(**arguments)
        made.house = True
        return made


class Point:
    def __init__(self, name: str, loads: Any) -> None:
        self.name, self.loads, self.value = name, loads, "house:House"

    def load(self) -> Any:
        return self.loads


def test_a_plugin_loads_the_tokenizer_by_its_name_or_for_its_family(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "entry_points", lambda group: [Point("house", House), Point("broken", dict)])
    assert load_tokenizer(job_of(tmp_path, base, type="house")).house
    with pytest.raises(RuntimeFailure, match="nowhere is no installed tokenizer plugin") as caught:
        load_tokenizer(job_of(tmp_path, base, type="nowhere"))
    assert "auto, broken, house" in caught.value.render()
    with pytest.raises(RuntimeFailure, match=r"'broken'.* is no TokenizerPlugin"):
        load_tokenizer(job_of(tmp_path, base, type="broken"))
    monkeypatch.setattr(tokenizer, "entry_points", lambda group: [Point("house", House)])
    assert load_tokenizer(job_of(tmp_path, base)).house  # for its family, unasked
    House.families = ()
    assert not hasattr(load_tokenizer(job_of(tmp_path, base)), "house")
    House.families = ("llama",)
