"""Review: what lets a person, or CI, trust a plan before anything runs."""
