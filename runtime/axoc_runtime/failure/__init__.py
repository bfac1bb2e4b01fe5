"""What becomes of a run that fails: what is told, by whom, with which exit code, and who ends the others."""
