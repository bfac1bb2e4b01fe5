"""Search: enumerate, refuse by rule, cost, rank, choose, explain."""
