"""The hosts of a run: how they find one another, speak, and notice that one is gone."""
