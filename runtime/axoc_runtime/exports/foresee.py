"""What a format will refuse of the model that is to be trained, read off the base's configuration: before it is trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from axoc_runtime.exports.request import requests_of
from axoc_runtime.exports.run import refusal
from axoc_runtime.exports.source import Source
from axoc_runtime.job import Job
from axoc_runtime.models.source import source_arguments


@dataclass(frozen=True, kw_only=True)
class Planned(Source):
    """The model that the run will leave, as far as it is known: its shape is the base's."""

    job: Job

    @cached_property
    def raw(self) -> Any:
        """transformers' configuration of the base."""
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(**source_arguments(self.job))

    @cached_property
    def config(self) -> Any:
        return self.raw.get_text_config()

    @cached_property
    def architecture(self) -> str:
        if self.job.training.objective == "reward":
            return "AutoModelForSequenceClassification"
        return str((self.raw.architectures or ["unknown"])[0])

    @cached_property
    def sees(self) -> bool:
        return self.job.model.vision

    @cached_property
    def parameters(self) -> int:
        return self.job.expect.parameters

    @property
    def calibration(self) -> tuple[tuple[int, ...], ...]:
        return ((0,),)  # the run will keep rows


def foreseen(job: Job) -> Iterator[str]:
    """A line for each format that cannot be made. Nothing where the base's configuration cannot be read: the load says why."""
    if not job.export.formats:
        return
    planned = Planned(run=job.output, work=Path(), job=job)
    try:
        _ = planned.config
    except (OSError, ValueError, KeyError):
        return
    for request in requests_of(job):
        if reason := refusal(planned, request):
            yield f"export to {request.name} cannot be made of {planned.architecture}: {reason}"
