"""``python -m axoc``."""

from axoc.cli import main

main()
