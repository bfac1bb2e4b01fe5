"""Plan to Bundle: every file in memory, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping

from axoc.emit import sources
from axoc.emit.deepspeed import deepspeed_config
from axoc.emit.fsdp import fsdp_config
from axoc.emit.job import BASE_DIR, job_dict
from axoc.emit.launcher import launch_environment
from axoc.emit.manifest import manifest_file
from axoc.emit.placement import config_path, placement
from axoc.emit.plan_json import plan_dict
from axoc.emit.requirements import requirements_lock
from axoc.emit.targets.registry import target_files
from axoc.emit.user_config import checked_user_config
from axoc.facts.exports import needs_tools
from axoc.facts.stored import COMPRESSED
from axoc.facts.varlen import FLASH_4
from axoc.ir.bundle import Bundle, BundleFile
from axoc.ir.canonical import dumps
from axoc.ir.plan import Plan


def build_bundle(
    plan: Plan,
    spec_text: str,
    lock_text: str,
    *,
    plugin_files: Mapping[str, Mapping[str, bytes]] | None = None,
    config_text: str | None = None,
    base_dir: str = BASE_DIR,
    inventory: str | None = None,
) -> Bundle:
    """The same arguments give the same bytes, whatever the machine.

    plugin_files: folder name -> relative path -> content, of ``request.plugins``.
    config_text: the text of ``distributed.config_path``, used in place of the generated configuration.
    inventory: the name or file the plan was made for.
    base_dir: where the spec's relative paths count from, relative to the bundle's folder.
    Raises UserError for plugins, a target or a configuration that cannot be used, and without axoc-runtime.
    """
    files = [
        _text("spec.yaml", spec_text),
        _text("spec.lock", lock_text),
        _text("plan.json", dumps(plan_dict(plan))),
        _text("job.json", dumps(job_dict(plan, base_dir=base_dir))),
        _text("requirements.lock", _requirements(plan)),
        _text("config/launch.env", launch_environment(plan).render()),
        *target_files(plan),
        *strategy_config(plan, config_text),
        *_documents(plan, base_dir),
        *sources.launcher_files(),
        *sources.runtime_files(),
        *sources.plugin_files(plugin_files or {}),
    ]
    return Bundle(files=tuple(sorted([*files, manifest_file(files, inventory)], key=lambda file: file.path)))


def _requirements(plan: Plan) -> str:
    flash_4 = plan.chosen.candidate.attention == FLASH_4
    return requirements_lock(placement(plan).profile, exports=exports_need_tools(plan), flash_4=flash_4)


def exports_need_tools(plan: Plan) -> bool:
    """Or the weights do: compressed-tensors, which decompresses them, is one of the tools."""
    wanted, stored = plan.request.export, plan.model.stored
    return needs_tools(wanted.formats, wanted.quantization) or (stored is not None and stored.by == COMPRESSED)


def strategy_config(plan: Plan, config_text: str | None) -> list[BundleFile]:
    strategy = plan.chosen.candidate.strategy
    path = config_path(strategy)
    if path is None:
        return []
    if config_text is not None:
        return [_text(path, checked_user_config(plan, config_text))]
    config = fsdp_config(plan).as_dict() if strategy == "fsdp" else deepspeed_config(plan).as_dict()
    return [_text(path, dumps(config))]


def _documents(plan: Plan, base_dir: str) -> list[BundleFile]:
    """What people read. Jinja2 is imported here and not above: a dry run does not pay for it."""
    from axoc.emit.documents import dockerfile, plan_markdown, report_html

    return [
        _text("PLAN.md", plan_markdown(plan, base_dir)),
        _text("report.html", report_html(plan)),
        _text("Dockerfile", dockerfile(plan)),
    ]


def _text(path: str, text: str) -> BundleFile:
    return BundleFile(path=path, content=text.encode())
