"""Loading of models and adapters, as the plan says."""
