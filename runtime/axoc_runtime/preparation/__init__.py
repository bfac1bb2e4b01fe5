"""From rows to what is trained on: shards of tokens, which rows are for what, and which rows share a pack."""
