from axoc_runtime.testing import SchemaConformance
from tickets_dataset import Tickets

CALL = {"type": "function", "function": {"name": "refund", "arguments": {"order": 7}}}


class TestTickets(SchemaConformance):
    schema = Tickets
    good = (
        {"user_query": "Where is my order?", "assistant_response": "On its way."},
        {"user_query": "I want my money back.", "assistant_response": "Here it is.", "tool_calls": [CALL]},
    )
    bad = (
        ({"user_query": "", "assistant_response": "On its way."}, "user_query"),
        ({"user_query": "Where is my order?", "assistant_response": None}, "assistant_response"),
        ({"user_query": "q", "assistant_response": "a", "tool_calls": ["refund("]}, "assistant_response"),
    )


def test_what_a_run_makes_of_a_ticket(axoc_examined):
    asked, called = axoc_examined(TestTickets.good)
    assert [m["role"] for m in asked.example.messages] == ["user", "assistant"]
    assert called.example is None, "rows with calls wait for support_tool_calls"
    _, called = axoc_examined(TestTickets.good, support_tool_calls=True)
    assert called.example.messages[1]["tool_calls"] == [CALL]
