"""Checkpoints and results in a store beside the local ones: s3://, gs://, az:// and what else fsspec knows.

A process of its own sends them, so that neither step nor end of a run waits for a network. On the store as on disk a
checkpoint counts once its marker is there, which is sent last. The local copy is never moved or deleted by any of this.
"""
