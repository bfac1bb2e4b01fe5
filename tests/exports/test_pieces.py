"""Parts of exports that need no model: texts, requests, mixtures, shapes, cards."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asking import plan
from axoc.emit.job import job_dict
from axoc.ir.plan import Plan
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.exports.gguf.mixture import matters, mixed
from axoc_runtime.exports.licences import NOTES, licence_lines, read_licence
from axoc_runtime.exports.provenance import account
from axoc_runtime.exports.texts import IGNORED, keep_texts, read_texts
from runtime.jobs import make_job

CONFIG = SimpleNamespace(
    num_hidden_layers=16, num_attention_heads=4, num_key_value_heads=2, hidden_size=256, head_dim=None
)


def test_held_out_rows_are_kept_and_read(tmp_path: Path) -> None:
    train = [{"input_ids": [1, 2, 3], "labels": [IGNORED, 2, 3]}] * 200
    held_out = [{"input_ids": list(range(9)), "labels": [IGNORED] * 4 + list(range(4, 9))}]
    keep_texts(tmp_path, train, held_out)
    found = read_texts(tmp_path, None)
    assert found.measured_on == "held-out rows"
    assert found.measured[0].ids == tuple(range(9))
    assert found.measured[0].counted == (False,) * 4 + (True,) * 5
    assert len(found.calibration) == 128


def test_without_held_out_rows_the_report_says_so(tmp_path: Path) -> None:
    keep_texts(tmp_path, [{"prompt_ids": [5, 6], "chosen_ids": [7, 8], "rejected_ids": [9]}], None)
    found = read_texts(tmp_path, None)
    assert found.measured_on == "training rows"
    assert found.measured[0].ids == (5, 6, 7, 8)
    assert found.measured[0].counted == (False, False, True, True)


def test_a_run_that_kept_nothing_is_measured_on_prose(tmp_path: Path) -> None:
    def tokenizer(text: str) -> dict[str, Any]:
        return {"input_ids": [ord(c) % 50 for c in text]}

    found = read_texts(tmp_path, tokenizer)
    assert "Python" in found.measured_on and len(found.measured[0].ids) == 256 and not found.calibration


def test_values_and_down_projections_are_finer_where_it_matters() -> None:
    kinds = {i: mixed("q4_k_m", f"blk.{i}.ffn_down.weight", CONFIG, 256).name for i in range(16)}
    assert {i for i, k in kinds.items() if k == "Q6_K"} == {i for i in range(16) if matters(i, 16)}
    assert kinds[0] == kinds[15] == "Q6_K" and "Q4_K" in kinds.values()
    assert mixed("q4_k_m", "blk.0.attn_q.weight", CONFIG, 256).name == "Q4_K"
    assert mixed("q4_k_m", "token_embd.weight", CONFIG, 256).name == "Q6_K"


def test_rows_that_k_quants_cannot_take_get_a_type_that_can() -> None:
    assert mixed("q4_k_m", "blk.0.attn_q.weight", CONFIG, 576).name == "Q5_0"
    assert mixed("q4_k_m", "blk.0.attn_q.weight", CONFIG, 40).name == "F16"
    assert mixed("f16", "blk.0.attn_q.weight", CONFIG, 40).name == "F16"


def test_a_licence_is_read_from_the_base_models_card_and_else_from_the_catalog(tmp_path: Path) -> None:
    assert read_licence(tmp_path)["licence"] is None
    catalogued = read_licence(tmp_path, "llama3.1")
    assert (catalogued["licence"], catalogued["licence_from"]) == ("llama3.1", "axoc's catalog")
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\nlicense: mit\n")
    (tmp_path / "LICENSE").write_text("terms")
    found = read_licence(tmp_path, "llama3.1")
    assert found == {"licence": "apache-2.0", "licence_from": "its own card", "licence_file": "LICENSE"}


def test_a_card_tells_what_the_licence_asks_for() -> None:
    told = "\n".join(licence_lines({"licence": "llama3.1", "licence_from": "axoc's catalog"}, str))
    assert "says axoc's catalog" in told and "Llama 3.1 Community License" in told and "Built with Llama" in told
    assert "look it up" in licence_lines({}, str)[0]
    assert not [note for note in NOTES.values() if "{" in note]


def test_the_catalogs_licence_goes_through_the_job_into_the_account(tmp_path: Path) -> None:
    """Of a hub's model, whose folder is not there to be read."""
    planned = plan("meta-llama/Meta-Llama-3-8B", "h100-sxm-80gb:8")
    assert isinstance(planned, Plan)
    assert job_dict(planned)["model"]["licence"] == "llama3"
    job = make_job(tmp_path, model__id="meta-llama/Meta-Llama-3-8B", model__licence="llama3")
    assert account(job)["base"]["licence"] == "llama3"


def test_every_wrong_format_is_named_at_once() -> None:
    from axoc_runtime.exports.request import read_requests

    with pytest.raises(RuntimeFailure) as caught:
        read_requests(["gguff", "gguf:q9", "ort:q8_0"])
    assert all(w in str(caught.value) for w in ("gguff", "q9", "ort has no quantization"))


def test_a_quantization_is_of_the_formats_that_have_it() -> None:
    from axoc_runtime.exports.request import read_requests

    assert [r.name for r in read_requests(["gguf", "ort", "gguf:q8_0", "gguf"], "q4_k_m")] == [
        "gguf:q4_k_m",
        "ort",
        "gguf:q8_0",
    ]
    with pytest.raises(RuntimeFailure, match="no format asked for has the quantization"):
        read_requests(["ort"], "q4_k_m")


def test_tensorrts_shapes_go_from_one_token_to_a_full_cache() -> None:
    from axoc_runtime.exports.tensorrt import build_script, shapes

    config = SimpleNamespace(**vars(CONFIG) | {"num_hidden_layers": 1, "max_position_embeddings": 512})
    found = shapes(config)
    assert json.loads(json.dumps(found)) == found
    assert found["past_key_values.0.key"]["min"] == [1, 2, 0, 64]
    for kind in ("min", "opt", "max"):
        new, cached = found["input_ids"][kind][1], found["past_key_values.0.key"][kind][2]
        assert found["attention_mask"][kind][1] <= new + cached <= 2 * 512
    assert "--minShapes=input_ids:1x1," in build_script(found) and "--onnx=model.onnx" in build_script(found)
