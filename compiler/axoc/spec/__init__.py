"""The spec: YAML with positions, pydantic models, diagnostics, and lowering to PlanRequest. pydantic stays in here."""
