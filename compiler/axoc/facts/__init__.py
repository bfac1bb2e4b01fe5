"""Facts: what is known about models, hardware, prices and data, each figure with its source."""
