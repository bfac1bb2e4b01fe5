"""The tokenizer of a job: the model's own or another, by a plugin or as the library loads it, with the spec's tokens and chat
template. Imports nothing heavy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, ClassVar, Final

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job, Tokenizer
from axoc_runtime.models.source import source_arguments

GROUP: Final = "axoc_runtime.tokenizers"
PLAIN_TEMPLATE: Final = (
    "{% for m in messages %}{{ m['role'] | capitalize }}: {{ m['content'] }}"
    "{{ eos_token if m['role'] == 'assistant' else '' }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant: {% endif %}"
)
"""For models whose tokenizer brings no chat template. It is saved with the trained model."""
EXCHANGE: Final = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]


class TokenizerPlugin(ABC):
    """Loads a tokenizer in a way of its own. One class, named as an entry point of ``axoc_runtime.tokenizers``; a spec takes
    it by that name in ``model.tokenizer.type``, or leaves it on auto for the families that it is for."""

    families: ClassVar[tuple[str, ...]] = ()
    """axoc's model families (``model.family`` of job.json) whose tokenizer it loads unasked."""

    @abstractmethod
    def load(self, arguments: Mapping[str, Any]) -> Any:
        """A transformers tokenizer. ``arguments``: of from_pretrained, the source first among them."""


def load_tokenizer(job: Job) -> Any:
    """Raises RuntimeFailure where it cannot be loaded, where a token to be added is there already, and where the spec's chat
    template does not write a plain exchange."""
    wanted = job.model.tokenizer
    tokenizer = _loaded(job, wanted)
    if wanted.added_tokens:
        _add(tokenizer, wanted)
    if wanted.chat_template is not None:
        tokenizer.chat_template = wanted.chat_template
        if not job.model.vision:  # whose templates take turns in parts: each row tries them
            _try(tokenizer)
    elif not getattr(tokenizer, "chat_template", None):
        tokenizer.chat_template = plain_template(tokenizer)
    return tokenizer


def tokenizer_source(job: Job) -> str:
    """A folder, or a hub id."""
    source = job.model.tokenizer.source
    if source is None:
        return job.model_source()
    local = job.resolve(source)
    return str(local) if local.exists() else source


def _loaded(job: Job, wanted: Tokenizer) -> Any:
    from transformers import AutoTokenizer

    arguments = source_arguments(job)
    if wanted.source is not None:
        arguments |= {"pretrained_model_name_or_path": tokenizer_source(job), "revision": "main"}
        arguments.pop("gguf_file", None)
    plugin = plugin_of(wanted.type, getattr(job.model, "family", ""))
    try:
        return AutoTokenizer.from_pretrained(**arguments) if plugin is None else plugin.load(arguments)
    except (OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        fix = "check model.id: a local folder with the tokenizer's files, or a hub id that this machine can reach"
        named = wanted.source or job.model.id
        raise RuntimeFailure(f"the tokenizer of {named} cannot be loaded: {first}", EXIT_INPUTS, fix) from error


def plugin_of(name: str | None, family: str) -> TokenizerPlugin | None:
    """The one of that name; without one the first that is for the family, or None. Raises RuntimeFailure."""
    points = sorted(entry_points(group=GROUP), key=lambda p: p.name)
    if name is None:
        return next((made for made in map(_made, points) if family in made.families), None)
    found = next((p for p in points if p.name == name), None)
    if found is None:
        known = ", ".join(["auto", *(p.name for p in points)])
        message = f"model.tokenizer.type {name} is no installed tokenizer plugin"
        raise RuntimeFailure(message, EXIT_INPUTS, f"take one of {known}, or name the plugin's folder under plugins")
    return _made(found)


def _made(point: Any) -> TokenizerPlugin:
    """A broken plugin is named, not passed over."""
    name = f"the tokenizer plugin {point.name!r} ({point.value})"
    try:
        made = point.load()()
    except Exception as error:  # a plugin may fail in any way
        message = f"{name} cannot be loaded: {type(error).__name__}: {error}"
        raise RuntimeFailure(message, EXIT_INPUTS, "repair or remove the plugin") from error
    if not isinstance(made, TokenizerPlugin):
        fix = "subclass axoc_runtime.models.tokenizer.TokenizerPlugin"
        raise RuntimeFailure(f"{name} is no TokenizerPlugin", EXIT_INPUTS, fix)
    return made


def _add(tokenizer: Any, wanted: Tokenizer) -> None:
    """Whole tokens, special ones in no way: they are decoded like other text. The plan has counted a row for each."""
    there = [t for t in wanted.added_tokens if t in tokenizer.get_vocab()]
    if there:
        message = f"model.tokenizer.added_tokens: the tokenizer has {', '.join(there)} already"
        raise RuntimeFailure(message, EXIT_INPUTS, "take them out of the list and plan again")
    tokenizer.add_tokens(list(wanted.added_tokens))
    rows = wanted.embedding_rows
    if rows is not None and len(tokenizer) > rows:
        message = f"the tokenizer has {len(tokenizer):,} tokens, and the plan's embedding {rows:,} rows"
        raise RuntimeFailure(message, EXIT_INPUTS, "use the tokenizer that the model was trained with")


def _try(tokenizer: Any) -> None:
    """Templates are run by transformers in a sandbox. One that is broken would make every row a bad one."""
    try:
        written = tokenizer.apply_chat_template(EXCHANGE, tokenize=False)
    except Exception as error:  # jinja2's own, and whatever a template raises
        message = f"model.tokenizer.chat_template fails on a plain exchange: {type(error).__name__}: {error}"
        raise RuntimeFailure(
            message, EXIT_INPUTS, "correct the template: it is Jinja, with messages to go through"
        ) from error
    if EXCHANGE[1]["content"] not in written:
        message = f"model.tokenizer.chat_template leaves out what the assistant says: it wrote {written[:80]!r}"
        raise RuntimeFailure(message, EXIT_INPUTS, "write message['content'] of every message")


def plain_template(tokenizer: Any) -> str:
    """It begins with the token that begins every text, where the tokenizer puts one: templates write it themselves."""
    begins = tokenizer.bos_token_id is not None and list(tokenizer("x")["input_ids"])[:1] == [tokenizer.bos_token_id]
    return ("{{ bos_token }}" if begins else "") + PLAIN_TEMPLATE
