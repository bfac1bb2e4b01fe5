"""Ollama's Modelfile: its template language is not Jinja, so the turns are read off the tokenizer's own rendering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from axoc_runtime.exports.source import Source

SYSTEM, USER, ASSISTANT = "\x01system\x01", "\x01user\x01", "\x01assistant\x01"
NOT_READ: Final = "The Modelfile has no TEMPLATE: the chat template is not one of fixed text around each turn."
WRITTEN: Final = "The Modelfile's template renders as the chat template does; not checked by Ollama, which is not here."


@dataclass(frozen=True, kw_only=True)
class Turns:
    """The fixed text around each turn's content."""

    start: str
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    default_system: str | None
    """What the template itself says where a conversation has no system turn."""

    def render(self, messages: list[dict[str, str]], *, generate: bool) -> str:
        sides = {"system": self.system, "user": self.user, "assistant": self.assistant}
        turns = "".join(sides[m["role"]][0] + m["content"] + sides[m["role"]][1] for m in messages)
        return self.start + turns + (self.assistant[0] if generate else "")


def modelfile(source: Source, file: str) -> tuple[str, str]:
    """(text, note for the user)."""
    lines = [f"FROM ./{file}"]
    found = turns(source.tokenizer)
    if found is not None:
        lines.append(f'TEMPLATE """{_template(found)}"""')
        if found.default_system:
            lines.append(f'SYSTEM """{found.default_system}"""')
    ends = [source.tokenizer.eos_token, *([found.assistant[1].strip()] if found else [])]
    lines += [f'PARAMETER stop "{end}"' for end in dict.fromkeys(e for e in ends if e)]
    return "\n".join(lines) + "\n", NOT_READ if found is None else WRITTEN


def turns(tokenizer: Any) -> Turns | None:
    """None where the rendering is not fixed text around each turn: checked by rendering conversations both ways."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    try:
        found = _read(tokenizer)
    except Exception:  # a template may raise whatever it likes, and then there is none to write
        return None
    return found if found is not None and _plain(found) and _agrees(tokenizer, found) else None


def _plain(found: Turns) -> bool:
    """Nothing that a Modelfile or its template language would read as its own."""
    fixed = [*found.system, *found.user, *found.assistant, found.default_system or ""]
    return not any(sign in text for text in fixed for sign in ('"""', "{{", "}}"))


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


CONVERSATION: Final = [_message("system", SYSTEM), _message("user", USER), _message("assistant", ASSISTANT)]


def _read(tokenizer: Any) -> Turns | None:
    """By where marked contents lie in the renderings. The text between two turns ends with what the next one begins with."""
    twice = [*CONVERSATION, _message("user", "\x02user\x02"), _message("assistant", "\x02assistant\x02")]
    whole, asked = _rendered(tokenizer, twice), _rendered(tokenizer, CONVERSATION[:2], generate=True)
    opening = asked.split(USER)[1]  # the end of the user's turn, and the beginning of the answer's
    answered = whole.split("\x02assistant\x02")[1]
    before_user = whole.split(SYSTEM)[1].split(USER)[0]
    before_second = whole.split(ASSISTANT)[1].split("\x02user\x02")[0]
    if not before_second.startswith(answered):
        return None
    user_begin = before_second[len(answered) :]
    if not before_user.endswith(user_begin):
        return None
    bos = tokenizer.bos_token or ""
    start = bos if bos and whole.startswith(bos) and not user_begin.startswith(bos) else ""
    system = (whole.split(SYSTEM)[0][len(start) :], before_user[: len(before_user) - len(user_begin)])
    user_end = _rendered(tokenizer, CONVERSATION[:2]).split(USER)[1]
    if not opening.startswith(user_end):
        return None
    sides = {"user": (user_begin, user_end), "assistant": (opening[len(user_end) :], answered)}
    made = Turns(start=start, system=system, default_system=None, **sides)
    return Turns(start=start, system=system, default_system=_default(tokenizer, made), **sides)


def _default(tokenizer: Any, found: Turns) -> str | None:
    alone = _rendered(tokenizer, CONVERSATION[1:2])[len(found.start) :].split(found.user[0] + USER)[0]
    if alone.startswith(found.system[0]) and alone.endswith(found.system[1]) and alone:
        return alone[len(found.system[0]) : len(alone) - len(found.system[1])].strip() or None
    return None


def _agrees(tokenizer: Any, found: Turns) -> bool:
    """With a system turn, and without one where the template's own default is put in its place."""
    default = [_message("system", found.default_system)] if found.default_system else []
    asked = [_message("user", "What?"), _message("assistant", "That."), _message("user", "Why?")]
    cases = [([_message("system", "Be brief.")], [_message("system", "Be brief.")]), ([], default)]
    return all(
        _rendered(tokenizer, [*given, *asked], generate=True) == found.render([*ours, *asked], generate=True)
        for given, ours in cases
    )


def _rendered(tokenizer: Any, messages: list[dict[str, str]], *, generate: bool = False) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate))


def _template(found: Turns) -> str:
    """In Go's template language, as Ollama renders a list of messages. It puts the token that begins a text itself."""
    parts: list[str] = []
    for role in ("system", "user", "assistant"):
        begin, end = getattr(found, role)
        word = "if" if not parts else "else if"
        parts.append(f'{{{{ {word} eq .Role "{role}" }}}}{begin}{{{{ .Content }}}}{end}')
    turns = "".join(parts)
    return f"{{{{ range .Messages }}}}{turns}{{{{ end }}}}{{{{ end }}}}{found.assistant[0]}"
