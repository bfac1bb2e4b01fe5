"""Model families: one class each, from a config.json to ModelFacts and the list of its linear layers."""
