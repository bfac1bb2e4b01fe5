"""Ingestion: readers bring rows, schemas make examples of them, encoding makes tokens. All before any process group."""
