"""A row of every built-in schema, made of what Python's own functions say of themselves, and what it means."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

from pairs import pairs

Turns = list[tuple[str, str]]
GIVEN = [
    (row["conversations"][0]["value"], row["chosen"]["value"], row["rejected"]["value"]) for row in pairs(20)
]  # real text: questions, right answers, wrong answers


def picture() -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (2, 2), (200, 10, 10)).save(stream, "PNG")
    return stream.getvalue()


def call(name: str = "look_up", **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def messages_of_a_tree(q: str, a: str, w: str, tree: str = "t") -> list[dict[str, Any]]:
    """A message a row, as OpenAssistant's tables have them: a question, a worse and a better answer, thanks for it."""
    said = [("0", None, q, "prompter", None), ("1", "0", w, "assistant", 1), ("2", "0", a, "assistant", 0)]
    return [
        {"message_id": f"{tree}{i}", "parent_id": p and f"{tree}{p}", "text": text, "role": role, "rank": rank,
         "message_tree_id": tree, "lang": "en", "deleted": False, "labels": {"name": ["spam"], "value": [0.0]}}
        for i, p, text, role, rank in [*said, ("3", "2", "Thanks", "prompter", None)]
    ]  # fmt: skip


def sft_rows(q: str, a: str, w: str) -> dict[str, tuple[dict[str, Any], Turns]]:
    """Name -> (row, the turns it means); tool calls are told as their JSON."""
    s, c = "Answer in one sentence.", w
    plain: Turns = [("user", q), ("assistant", a)]
    looked = json.dumps({"doc": a})
    tool = {"name": "look_up", "description": "Finds a docstring.", "parameters": {"type": "object", "properties": {}}}
    called: Turns = [("user", q), ("assistant", "look_up"), ("tool", looked), ("assistant", a)]
    return {
        "alpaca": ({"instruction": q, "input": c, "output": a}, [("user", f"{q}\n\n{c}"), ("assistant", a)]),
        "alpaca_system": ({"instruction": q, "output": a, "system": s}, [("system", s), *plain]),
        "alpaca_chat": (
            {"instruction": q, "output": a, "history": [["Hello", w]]},
            [("user", "Hello"), ("assistant", w), *plain],
        ),
        "sharegpt": (
            {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}], "system": s},
            [("system", s), *plain],
        ),
        "chat": ({"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}, plain),
        "openai_tools": (
            {
                "messages": [
                    {"role": "user", "content": q},
                    {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [
                            {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": '{"of": "x"}'}}
                        ],
                    },
                    {"role": "tool", "tool_call_id": "1", "content": looked},
                    {"role": "assistant", "content": a},
                ],
                "tools": [{"type": "function", "function": tool}],
            },
            called,
        ),
        "anthropic_tools": (
            {
                "messages": [
                    {"role": "user", "content": q},
                    {
                        "role": "assistant",
                        "content": [{"type": "tool_use", "id": "1", "name": "look_up", "input": {"of": "x"}}],
                    },
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": looked}]},
                    {"role": "assistant", "content": [{"type": "text", "text": a}]},
                ],
                "tools": [{"name": "look_up", "input_schema": {"type": "object", "properties": {}}}],
            },
            called,
        ),
        "openassistant": (
            {
                "message_tree_id": "t",
                "prompt": {
                    "text": q,
                    "role": "prompter",
                    "replies": [
                        {"text": w, "role": "assistant", "rank": 1, "replies": []},
                        {
                            "text": a,
                            "role": "assistant",
                            "rank": 0,
                            "replies": [{"text": "Thanks", "role": "prompter", "replies": []}],
                        },
                    ],
                },
            },
            plain,
        ),
        "openassistant_messages": (
            messages_of_a_tree(q, a, w)[0] | {"replies": messages_of_a_tree(q, a, w)[1:3]},
            plain,
        ),
        "dolly": (
            {"instruction": q, "context": c, "response": a, "category": "open_qa"},
            [("user", f"{c}\n\n{q}"), ("assistant", a)],
        ),
        "orca": ({"system_prompt": s, "question": q, "response": a}, [("system", s), *plain]),
        "question_answer": ({"prompt": q, "completion": a}, plain),
        "context_answer": (
            {"question": q, "context": c, "answers": {"text": [a, w], "answer_start": [0, 0]}},
            [("user", f"{c}\n\n{q}"), ("assistant", a)],
        ),
        "summary": (
            {"article": c, "highlights": a},
            [("user", f"Summarize the following text.\n\n{c}"), ("assistant", a)],
        ),
        "rationale": (
            {"instruction": q, "rationale": w, "answer": a},
            [("user", q), ("assistant", f"{w}\n\n{a}")],
        ),
    }


def other_rows(q: str, a: str, w: str) -> dict[str, dict[str, Any]]:
    """Of the kinds that are no conversations."""
    asked = {"role": "user", "content": q}
    return {
        "completion": {"text": a},
        "raw_text": {"content": a, "url": "https://docs.python.org", "date": "2026-01-01"},
        "segments": {"segments": [{"text": f"{q}\n", "label": False}, {"text": a, "label": True}]},
        "tokenized": {"input_ids": [1, 2, 3], "labels": [-100, 2, 3]},
        "preference": {"prompt": q, "chosen": a, "rejected": w},
        "argilla": {"instruction": q, "chosen_response": a, "rejected_response": w},
        "intel": {"system": "Be brief.", "question": q, "chosen": a, "rejected": w},
        "ultrafeedback": {
            "instruction": q,
            "completions": [{"response": w, "overall_score": 2.0}, {"response": a, "overall_score": 8.5}],
        },
        "reward_pairs": {
            "chosen": f"\n\nHuman: {q}\n\nAssistant: {a}",
            "rejected": f"\n\nHuman: {q}\n\nAssistant: {w}",
        },
        "rated": {"prompt": q, "completion": a, "label": True},
        "stepwise": {"prompt": q, "completions": [a, w], "labels": [True, False]},
        "prompts": {"prompt": q, "answer": a},
        "vision_chat": {"messages": [{**asked, "content": f"<image>{q}"}, {"role": "assistant", "content": a}],
                        "images": [f"data:image/png;base64,{base64.b64encode(picture()).decode()}"]},
        "vision_qa": {"image": {"bytes": picture(), "path": None}, "question": q, "answer": a},
    }  # fmt: skip
