"""`axoc import`: configurations of other trainers, key by key, as a spec."""
