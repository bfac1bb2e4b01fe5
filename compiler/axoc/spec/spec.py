"""The whole spec, version 1."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field

from axoc.spec.adapter import ADAPTED, Adapter
from axoc.spec.dataset import ONE_OR_MORE, Dataset
from axoc.spec.distributed import Distributed
from axoc.spec.misc import Export, Policy, Samples
from axoc.spec.model import Model
from axoc.spec.numbers import Whole
from axoc.spec.parts import EMPTY, MANY, NONE, Either, Part
from axoc.spec.problems import wrong
from axoc.spec.scalars import number, show
from axoc.spec.target import TARGET, Target
from axoc.spec.training import Training
from axoc.spec.url import StoreUrl
from axoc.spec.words import Text, Words

VERSION: Final = 1
METRICS: Final = Words(
    ("perplexity", "rougeL", "rouge1", "rouge2"), {"ppl": "perplexity", "rouge": "rougeL", "loss": "perplexity"}
)
TRACKERS: Final = Words(("tensorboard", "wandb", "mlflow"), {"weights_and_biases": "wandb", "tb": "tensorboard"})
LEVELS: Final = Words(("DEBUG", "INFO", "WARNING", "ERROR"), {"warn": "WARNING", "critical": "ERROR"}, any_case=True)


class _Version(Whole):
    def read(self, value: Any) -> Any:
        if number(value) == VERSION:
            return VERSION
        raise wrong(
            f"is {show(value)}",
            expected=f"{VERSION}: this axoc reads version {VERSION} of the spec",
            fix=f"write version: {VERSION}",
        )

    def json(self) -> dict[str, Any]:
        return {"const": VERSION}


_MODEL: Final = Either(Model, lambda value, long: long(value), ({"type": ["string", "null"]},))


class Spec(Part):
    version: Annotated[int, _Version()] = Field(default=VERSION, description="Version of the spec's form.")
    name: Annotated[str | None, Text(what="a name", null=True)] = Field(
        default=None, description="Name of the run; by default the file's."
    )
    model: Annotated[Model, _MODEL] = Field(
        default_factory=Model, description="The model: a mapping, or a hub id.", json_schema_extra=EMPTY
    )
    adapter: Annotated[Adapter | None, ADAPTED] = Field(
        default=None,
        description="none trains all weights; lora, or a mapping, trains an adapter.",
        json_schema_extra=NONE,
    )
    dataset: Annotated[tuple[Dataset, ...], ONE_OR_MORE] = Field(
        default_factory=lambda: (Dataset(),),
        description="The data: a mapping, a path, or a list of them with weights.",
        json_schema_extra=EMPTY,
    )
    training: Training = Field(default_factory=Training, description="How it is trained.", json_schema_extra=EMPTY)
    eval_metrics: Annotated[tuple[Annotated[str, METRICS], ...], MANY] = Field(
        default=("perplexity",), description="What is measured on the held-out split."
    )
    distributed: Distributed = Field(
        default_factory=Distributed, description="How it is spread over devices.", json_schema_extra=EMPTY
    )
    export: Export = Field(default_factory=Export, description="What is written after it.", json_schema_extra=EMPTY)
    tracking: Annotated[tuple[Annotated[str, TRACKERS], ...], MANY] = Field(
        default=("tensorboard",), description="Where the log goes; none for nowhere."
    )
    output_dir: Annotated[str, Text(what="a path")] = Field(
        default="./axoc-output", description="Where the run writes."
    )
    upload_to: Annotated[str | None, StoreUrl()] = Field(
        default=None,
        description="Where checkpoints and results are sent as well, e.g. s3://bucket/prefix. Credentials come from the "
        "environment.",
    )
    logging_level: Annotated[str, LEVELS] = Field(default="INFO", description="How much the run says.")
    target: Annotated[Target, TARGET] = Field(
        default_factory=Target, description="What launches the run: a word, or a mapping.", json_schema_extra=EMPTY
    )
    policy: Policy = Field(default_factory=Policy, description="Limits of the plan.", json_schema_extra=EMPTY)
    samples: Samples = Field(default_factory=Samples, description="Questions for the model.", json_schema_extra=EMPTY)
    inventory: Annotated[str | None, Text(what="an inventory's name or file", null=True)] = Field(
        default=None, description="What to plan for where the command line names none, e.g. h100-sxm-80gb:8."
    )
    plugins: Annotated[tuple[Annotated[str, Text(what="a folder")], ...], MANY] = Field(
        default=(), description="Folders of Python packages with entry points, copied into the bundle."
    )
