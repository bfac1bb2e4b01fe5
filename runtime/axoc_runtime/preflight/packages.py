"""The packages that a job imports: whether they are there, and as the bundle's lock has them."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Iterator
from typing import Final

from axoc_runtime.attention.backends import installed
from axoc_runtime.errors import EXIT_ENVIRONMENT
from axoc_runtime.exports.request import missing_packages, requests_of
from axoc_runtime.job import Job
from axoc_runtime.preflight.finding import WARNING, Finding

HOSTED_TRACKERS: Final = ("wandb", "mlflow")
"""No lock pins them."""
FLASH_4: Final = "flash-attn-4"
PINNED: Final = re.compile(r"(?m)^([A-Za-z0-9._-]+)==([^\s;\\]+)")
"""A line of requirements.lock."""


def packages(job: Job) -> list[str]:
    """What this job imports."""
    needed = ["torch", "transformers", "accelerate", "datasets", "safetensors", "rich"]
    needed += ["peft"] if job.adapter is not None else []
    needed += ["deepspeed"] if job.distributed.strategy.startswith("zero") else []
    needed += ["flash_attn"] if job.model.attention == "flash_attention_2" else []
    needed += ["flash_attn.cute"] if job.model.attention == "flash_attention_4" else []
    needed += ["liger_kernel"] if job.model.kernels == "liger" else []
    needed += ["bitsandbytes"] if job.model.quantization is not None or job.training.optimizer.endswith("8bit") else []
    needed += [t for t in job.tracking if t in ("tensorboard", *HOSTED_TRACKERS)]
    needed += ["rouge_score"] if any(m.startswith("rouge") for m in job.eval_metrics) else []
    needed += ["gguf"] if (job.model.id or "").endswith(".gguf") else []
    needed += [p for packages in missing_packages(requests_of(job)).values() for p in packages]
    return needed


def check_packages(job: Job) -> Iterator[Finding]:
    if missing := [name for name in packages(job) if not installed(name)]:
        fix = "run launch.sh without --no-install, or install what requirements.lock pins"
        if "flash_attn" in missing:  # built for one torch and one CUDA: no lock pins it
            fix = "set model.attention: sdpa and plan again, or install flash-attn for this torch and use --no-install"
        if hosted := [t for t in missing if t in HOSTED_TRACKERS]:  # clients of services: only who asks for one has it
            fix = f"take {', '.join(hosted)} out of tracking and plan again, or install it and use --no-install"
        yield Finding(EXIT_ENVIRONMENT, f"not installed: {', '.join(missing)}", fix)
    locked, found = pinned(job), versions(job)
    if differing := [
        f"{name} {found[name]} (lock: {locked[name]})"
        for name in found
        if name in locked and public(found[name]) != public(locked[name])
    ]:
        fix = "run launch.sh without --no-install, or take these for what they are: not what was planned with"
        yield Finding(WARNING, f"not as locked: {', '.join(differing)}", fix)


def versions(job: Job) -> dict[str, str]:
    """Of what is installed of them, and of Python, by the name of the distribution."""
    found = {"python": platform.python_version()}
    for name in sorted({distribution(package) for package in packages(job)}):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def pinned(job: Job) -> dict[str, str]:
    """What the bundle's requirements.lock says; nothing where there is none."""
    try:
        text = (job.bundle_dir / "requirements.lock").read_text(encoding="utf-8")
    except OSError:
        return {}
    return {distribution(name): version for name, version in PINNED.findall(text)}


def distribution(package: str) -> str:
    """flash-attn 2 and 4 share a package's name."""
    package = FLASH_4 if package == "flash_attn.cute" else package
    return package.lower().replace("_", "-")


def public(version: str) -> str:
    """Without the local part, which says for what it was built: 2.13.0+cpu."""
    return version.partition("+")[0]
