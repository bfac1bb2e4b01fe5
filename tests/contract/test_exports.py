"""The compiler's facts of export formats are those of the runtime's plugins."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from axoc.emit.requirements import requirements_lock, split_entries
from axoc.facts.exports import FORMATS, NONE, asked, needs_tools
from axoc_runtime.exports import measure, registry

ROOT = Path(__file__).resolve().parents[2]


def test_both_name_the_same_formats() -> None:
    assert set(FORMATS) == set(registry.BUILTIN)
    assert len(FORMATS) >= 9


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_both_name_the_same_quantizations_and_whether_tools_are_needed(name: str) -> None:
    made = registry.exporter(name)
    assert made.name == name
    assert set(made.variants) == set(FORMATS[name].bytes_a_parameter)
    assert FORMATS[name].tools or {p for v in made.variants for p in made.packages_of(v)} <= {
        "bitsandbytes"
    }  # in every lock
    assert (made.packages_of(NONE) != ()) == (FORMATS[name].tools and FORMATS[name].plain_tools)


def test_a_plugins_family_is_exported_as_one_without_a_family() -> None:
    for name in FORMATS:
        for of in asked((name, *(f"{name}:{q}" for q in FORMATS[name].quantizations)), NONE):
            assert of.why_not("house") == of.why_not("generic"), of.written
    assert asked(("vllm:fp8",), NONE)[0].why_not("house") is None


def test_every_quantization_has_a_bound() -> None:
    asked = {q for f in FORMATS.values() for q in f.quantizations}
    assert asked <= set(measure.BOUNDS)


def test_the_optional_extra_and_the_lock_pin_the_same_versions() -> None:
    extra = tomllib.loads((ROOT / "runtime/pyproject.toml").read_text())["project"]["optional-dependencies"]["export"]
    locks = ROOT / "templates/axoc_templates/locks"
    named = [line for line in (locks / "export.in").read_text().splitlines() if line]
    assert set(extra) <= set(named)
    for profile in ("cpu", "cuda"):
        lock = "".join((locks / f"{name}.lock").read_text() for name in (profile, f"{profile}-export"))
        for line in named:
            assert re.search(rf"(?m)^{re.escape(line)}[ \\]", lock), f"{profile}: {line}"
        assert "telemetry" not in lock


def test_a_bundle_pins_the_tools_only_where_they_are_asked_for() -> None:
    assert not needs_tools((), NONE)
    assert not needs_tools(("safetensors", "pytorch", "vllm", "mlx"), NONE)
    assert needs_tools(("vllm",), "fp8") and needs_tools(("vllm:fp8",), NONE) and needs_tools(("gguf",), NONE)
    plain, more = requirements_lock("cpu"), requirements_lock("cpu", exports=True)
    assert more.startswith(plain) and "onnxruntime==" not in plain
    names = [e.split("==")[0] for e in split_entries(more)]
    assert {"onnxruntime", "openvino", "xllamacpp"} <= set(names)
    assert len(set(names)) == len(set(split_names(plain))) + len(
        split_names(more[len(plain) :])
    )  # nothing is pinned twice


def split_names(lock: str) -> list[str]:
    return [e.split("==")[0] for e in split_entries(lock)]
