"""What targets emit: the engine's files and no others, from one plan; whatever text stands in a spec stays text."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from axoc.emit.targets import registry
from axoc.emit.targets.base import Target
from axoc.emit.targets.names import dns_name, plain_name
from axoc.emit.targets.registry import target_files, target_named
from axoc.errors import UserError
from axoc.facts import targets as facts
from axoc.facts.targets import BUILTIN, GROUP, TARGETS
from axoc.ir.plan import Plan
from axoc.ir.request import TargetRequest
from axoc.spec.target import Target as SpecTarget
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[3]
Planned = Callable[..., Plan]
OWN = {
    "torchrun": set(),
    "slurm": {"config/slurm.sbatch"},
    "kubernetes": {"config/trainjob.yaml", "config/jobset.yaml"},
    "skypilot": {"config/skypilot.yaml"},
    "ray": {"config/ray_train.py", "config/ray.json"},
}
HOSTILE = "$(touch pwned)`id`; \"'\\ \n#SBATCH --wrap=x\n--- {a: [b]} !!python ${HOME} yes é\t"


def texts(plan: Plan) -> dict[str, str]:
    return {f.path: f.content.decode() for f in target_files(plan)}


def documents(text: str) -> list[Any]:
    return list(yaml.safe_load_all(text))


@pytest.mark.parametrize("kind", TARGETS)
def test_only_files_of_its_engine_and_always_the_same(planned: Planned, kind: str) -> None:
    found = texts(planned(kind))
    assert set(found) == OWN[kind] | {"config/target.sh"}
    assert found == texts(planned(kind))


def test_entry_points_settings_and_request_are_of_one_mind() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
    assert declared == BUILTIN
    fields = set(SpecTarget.model_fields)
    assert {name for t in TARGETS.values() for name in t.settings} == fields - {"type"}
    assert set(TargetRequest.__dataclass_fields__) == fields
    assert all(isinstance(target_named(name), Target) for name in BUILTIN)


def test_slurm_asks_for_what_the_plan_needs(planned: Planned) -> None:
    script = texts(planned("slurm", partition="gpu", account="ml", time_limit_hours=36.5, options={"exclusive": True}))
    lines = script["config/slurm.sbatch"].splitlines()
    asked = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")}
    wanted = {"--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=8", "--partition=gpu", "--account=ml", "--exclusive"}
    assert wanted | {"--time=1-12:30:00", "--requeue", "--signal=B:USR1@120", "--open-mode=append"} <= asked
    assert "SLURM_NODEID" not in script["config/slurm.sbatch"], "ranks expand on the worker"
    chained = texts(planned("slurm", restart="array", retries=5))["config/slurm.sbatch"]
    assert "#SBATCH --array=0-5%1\n" in chained and "#SBATCH --no-requeue\n" in chained


def test_kubernetes_pods_are_those_of_the_plan(planned: Planned) -> None:
    more = {"namespace": "train", "queue": "team", "claim": "data", "image": "ghcr.io/a/b:1", "time_limit_hours": 2.0}
    found = texts(planned("kubernetes", options={"nodeSelector": {"pool": "h200"}}, **more))
    runtime, job = documents(found["config/trainjob.yaml"])
    (job_set,) = documents(found["config/jobset.yaml"])
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert (job["spec"]["trainer"]["numNodes"], job["spec"]["trainer"]["numProcPerNode"]) == (2, 8)
    assert job["spec"]["activeDeadlineSeconds"] == 7200
    assert job["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team"} == job_set["metadata"]["labels"]
    for document in (runtime["spec"]["template"], job_set):
        (node,) = document["spec"]["replicatedJobs"]
        assert document["spec"]["failurePolicy"] == {"maxRestarts": 3}
        spec, pod = node["template"]["spec"], node["template"]["spec"]["template"]["spec"]
        assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (2, 2, 0)
        assert pod["nodeSelector"] == {"pool": "h200"}
        assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "data"}
        assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 8
        assert pod["containers"][0]["command"][-1] == "--resume"


def test_skypilot_names_the_accelerator_or_asks_for_it(planned: Planned, plans: ModuleType) -> None:
    (task,) = documents(texts(planned("skypilot", spot=True, infra="aws"))["config/skypilot.yaml"])
    assert task["num_nodes"] == 2 and task["resources"]["accelerators"] == {"H200": 8}
    assert task["resources"]["use_spot"] is True and task["resources"]["infra"] == "aws"
    from dataclasses import replace

    plan = planned("skypilot")
    odd = replace(plan.cluster, accelerator=replace(plan.cluster.accelerator, name="tpu-v9"))
    with pytest.raises(UserError, match="tpu-v9"):
        target_files(replace(plan, cluster=odd))
    named = planned("skypilot", plan=replace(plan, cluster=odd), accelerator="TPU9")
    assert documents(texts(named)["config/skypilot.yaml"])[0]["resources"]["accelerators"] == {"TPU9": 8}


def test_no_more_cores_or_memory_than_a_node_has(planned: Planned) -> None:
    from dataclasses import replace

    plan = planned("ray")
    small = replace(plan, cluster=replace(plan.cluster, cpu_cores_per_node=12, host_memory_bytes=2 << 30))
    assert json.loads(texts(small)["config/ray.json"])["resources_per_worker"] == {"CPU": 12, "GPU": 8}
    slurm = texts(planned("slurm", plan=small))["config/slurm.sbatch"]
    assert "--cpus-per-task=12\n" in slurm and "--mem=2G\n" in slurm
    set_by_hand = texts(planned("slurm", plan=small, cpus_per_process=4, host_memory_gb=100.0))["config/slurm.sbatch"]
    assert "--cpus-per-task=32\n" in set_by_hand and "--mem=100G\n" in set_by_hand


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(name=st.one_of(st.just(HOSTILE), st.text(max_size=80)), value=st.one_of(st.just(HOSTILE), st.text(max_size=60)))
def test_texts_of_a_spec_stay_texts(planned: Planned, name: str, value: str) -> None:
    script = texts(planned("slurm", name=name, options={"comment": value}))["config/slurm.sbatch"]
    plain = texts(planned("slurm", options={"comment": "x"}))["config/slurm.sbatch"]
    assert len(script.splitlines()) == len(plain.splitlines()), "no text begins a line"
    (given_name,) = [line for line in script.split("\n") if line.startswith("#SBATCH --job-name")]
    assert re.fullmatch(r"#SBATCH --job-name=[A-Za-z0-9._-]+", given_name)
    assert dns_name(name, 48) == dns_name(name, 48) and re.fullmatch(
        r"[a-z]([a-z0-9-]{0,46}[a-z0-9])?", dns_name(name, 48)
    )
    pod = {"nodeSelector": {"x": value}}
    for path, text in texts(planned("kubernetes", name=name, options=pod)).items():
        if path.endswith(".yaml"):
            assert value in str_values(documents(text)), path
    (task,) = documents(texts(planned("skypilot", name=name, options={"disk_tier": value}))["config/skypilot.yaml"])
    assert task["resources"]["disk_tier"] == value
    assert re.fullmatch(r"[A-Za-z0-9._-]+", json.loads(texts(planned("ray", name=name))["config/ray.json"])["name"])


def str_values(document: Any) -> list[str]:
    if isinstance(document, dict):
        return [s for v in document.values() for s in str_values(v)]
    if isinstance(document, list):
        return [s for v in document for s in str_values(v)]
    return [document] if isinstance(document, str) else []


def test_yaml_that_old_and_new_readers_take_alike(planned: Planned) -> None:
    odd = {"nodeSelector": {"a": "012", "b": "0o14", "c": "no", "d": "1:30", "e": "1e3", "f": "~", "on": "x", "y": "z"}}
    text = texts(planned("kubernetes", options=odd))["config/jobset.yaml"]
    for value in odd["nodeSelector"].values():
        assert f'"{value}"' in text
    assert '"on": "x"' in text and '"y": "z"' in text


def test_figures_for_the_shell_are_quoted(planned: Planned) -> None:
    from axoc.emit.launcher import launch_environment

    text = launch_environment(planned("kubernetes", name=HOSTILE)).render()
    lines = text.splitlines()[1:]
    assert all(len(shlex.split(line)) == 1 for line in lines)
    shown = subprocess.run(
        ["bash", "-c", 'eval "$1"; printf %s "$PLAN_IMAGE"', "-", text], capture_output=True, text=True
    )
    assert shown.stdout == f"{dns_name(HOSTILE, 48)}:{'ab' * 6}"


def test_a_list_is_no_option_of_sbatch(planned: Planned) -> None:
    with pytest.raises(UserError, match=r"target\.options\.nodelist"):
        target_files(planned("slurm", options={"nodelist": ["a", "b"]}))
    kept = texts(planned("slurm", options={"a": False, "b": None, "nice": 100}))["config/slurm.sbatch"]
    assert "--a" not in kept and "--b\n" not in kept and "--nice=100\n" in kept


class House(Target):
    def shell(self) -> str:
        return "on_worker() { return 0; }\nuse_placement() { return 0; }\n"


class Point:
    def __init__(self, name: str, value: str, loaded: Any) -> None:
        self.name, self.value, self._loaded = name, value, loaded

    def load(self) -> Any:
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Entry points that are there beside axoc's own."""

    def install(*points: Point) -> None:
        own = [Point(n, v, None) for n, v in BUILTIN.items()]

        def entry_points(*, group: str, name: str | None = None) -> list[Point]:
            assert group == GROUP
            return [p for p in (*own, *points) if name in (None, p.name)]

        for module in (facts, registry):
            monkeypatch.setattr(module, "entry_points", entry_points)
        facts.plugin_targets.cache_clear()

    yield install
    facts.plugin_targets.cache_clear()


def test_a_plugin_is_a_target_and_may_take_a_built_ins_place(planned: Planned, installed: Callable[..., None]) -> None:
    installed(Point("house", "house:House", House), Point("slurm", "house:House", House))
    assert texts(planned("house"))["config/target.sh"] == House().shell()
    assert isinstance(target_named("slurm"), House)
    from axoc.spec.load import load_spec

    spec = b"model: {config: c.json}\ntarget: {type: house, partition: any, options: {x: [1]}}\n"
    assert load_spec(spec, "s.yaml").target.options == {"x": [1]}


def test_one_that_cannot_be_loaded_or_is_not_there_is_named(planned: Planned, installed: Callable[..., None]) -> None:
    installed(Point("house", "house:House", ImportError("no house")), Point("shed", "shed:Shed", dict))
    with pytest.raises(UserError, match="house of house:House cannot be loaded: no house"):
        target_named("house")
    with pytest.raises(UserError, match="shed:Shed is no"):
        target_named("shed")
    with pytest.raises(UserError, match="barn is not installed"):
        target_named("barn")


@pytest.mark.parametrize("name", ["", "   ", "---", "é", HOSTILE])
def test_names_are_never_empty(name: str) -> None:
    assert plain_name(name) and dns_name(name, 48)
