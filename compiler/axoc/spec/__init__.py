"""The spec: YAML with positions, pydantic models, diagnostics, and lowering to PlanRequest. pydantic stays in here."""

import os

# An installed pydantic plugin must not change a plan, and looking for one reads every installed distribution.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
