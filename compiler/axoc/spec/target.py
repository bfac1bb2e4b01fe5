"""The target: what launches the run, and what its engine must be told. Each setting belongs to some of the targets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from axoc.facts.targets import TARGETS, plugin_targets
from axoc.spec.numbers import Number, Reader, Whole
from axoc.spec.parts import EMPTY, Either, Part
from axoc.spec.problems import wrong
from axoc.spec.scalars import show
from axoc.spec.words import Flag, Options, Text, Words

_HINTS: Final = {
    "k8s": "kubernetes",
    "local": "torchrun",
    "accelerate": "torchrun",
    "sbatch": "slurm",
    "sky": "skypilot",
}


class _Kind(Reader):
    """A target of axoc, or of a plugin that is installed."""

    def read(self, value: Any) -> Any:
        return self._words().read(value)

    def json(self) -> dict[str, Any]:
        return self._words().json()

    def _words(self) -> Words:
        return Words((*TARGETS, *sorted(plugin_targets() - TARGETS.keys())), _HINTS)


KIND: Final = _Kind()


@dataclass(frozen=True, kw_only=True)
class Pattern(Text):
    """One line of these characters and no others: it stands in files that other programs read."""

    pattern: str = ""

    def _check(self, text: str, value: object) -> None:
        super()._check(text, value)
        if not re.fullmatch(self.pattern, text):
            raise wrong(f"is {show(value)}", expected=self.what, fix=self._fix(value))

    def json(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"type": "string", "pattern": f"^(?:{self.pattern})$"}
        return {"anyOf": [plain, {"type": "null"}]} if self.null else plain


_SLURM: Final = Pattern(what="a name of letters, digits and ._:@+,-", null=True, pattern=r"[A-Za-z0-9._:@+,-]{1,128}")
_DNS: Final = Pattern(
    what="a name of lower-case letters, digits and -, at most 63",
    null=True,
    pattern=r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
)
_IMAGE: Final = Pattern(
    what="an image, e.g. ghcr.io/acme/run:7", null=True, pattern=r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}"
)
_WORDY: Final = Pattern(what="letters, digits and ._:/-", null=True, pattern=r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")


class Target(Part):
    """What launches the run: a word, or a mapping with its settings."""

    short: ClassVar[str | None] = "type"

    type: Annotated[str, KIND] = Field(
        default="torchrun", description=f"{', '.join(TARGETS)}, or an installed entry point of axoc.targets."
    )
    retries: Annotated[int, Whole(minimum=0, maximum=1000)] = Field(
        default=3,
        description="How often a run that was taken away, or that lost a node, goes on from its last checkpoint by itself.",
    )
    rendezvous: Annotated[str, Words(("static", "c10d"), {"etcd": "c10d", "elastic": "c10d"})] = Field(
        default="static",
        description="torchrun: hosts with fixed ranks, or any hosts that come, where a lost one may be replaced.",
    )
    time_limit_hours: Annotated[float | None, Number(open_minimum=True, maximum=8760, words=("null",))] = Field(
        default=None, description="slurm, kubernetes: the engine ends what takes longer; slurm goes on in a new slot."
    )
    cpus_per_process: Annotated[int | str, Whole(maximum=1024, words=("auto",))] = Field(
        default="auto", description="All but torchrun: cores of each process. auto: 8 with a GPU, 1 without."
    )
    host_memory_gb: Annotated[float | str, Number(open_minimum=True, maximum=1e5, words=("auto",))] = Field(
        default="auto", description="slurm, kubernetes, skypilot: of each node. auto: the plan's, and a quarter more."
    )
    partition: Annotated[str | None, _SLURM] = Field(default=None, description="slurm: where it queues.")
    account: Annotated[str | None, _SLURM] = Field(default=None, description="slurm: what is charged.")
    qos: Annotated[str | None, _SLURM] = Field(default=None, description="slurm: quality of service.")
    restart: Annotated[str, Words(("requeue", "array"), {"chain": "array", "dependency": "array"})] = Field(
        default="requeue",
        description="slurm: the same job again, or an array of jobs one after the other, where a site forbids requeueing.",
    )
    image: Annotated[str | None, _IMAGE] = Field(
        default=None, description="kubernetes, skypilot: the image built from the bundle's Dockerfile."
    )
    namespace: Annotated[str | None, _DNS] = Field(default=None, description="kubernetes: by default kubectl's own.")
    queue: Annotated[str | None, _DNS] = Field(default=None, description="kubernetes: a LocalQueue of Kueue.")
    claim: Annotated[str | None, _DNS] = Field(
        default=None,
        description="kubernetes: a PersistentVolumeClaim with the data, which takes the output; several nodes need one.",
    )
    accelerator: Annotated[str | None, _WORDY] = Field(
        default=None, description="skypilot: its own name of the accelerator, where axoc does not know it."
    )
    infra: Annotated[str | None, _WORDY] = Field(default=None, description="skypilot: a cloud, region or zone.")
    spot: Annotated[bool, Flag()] = Field(
        default=False, description="skypilot: capacity that may be taken away; needs upload_to, to go on from."
    )
    options: Annotated[dict[str, Any], Options()] = Field(
        default_factory=dict,
        description="What the engine takes beyond: "
        + "; ".join(f"{name}: {facts.options}" for name, facts in TARGETS.items() if facts.options)
        + ".",
        json_schema_extra=EMPTY,
    )


TARGET: Final = Either(Target, lambda value, long: long(value), ({"type": "null"}, KIND.json()))
