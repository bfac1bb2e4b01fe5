"""What the items of the ledgers are, a line each, in words."""

from __future__ import annotations

from typing import Final

DEVICE_ITEMS: Final = {
    "weights": "the model's weights, or this rank's share of them, and adapters",
    "reference model": "a second, frozen copy of the base that the trained model is held against, or this rank's share of it",
    "optimizer states": "what the optimizer remembers of each trained weight, and fp32 masters where a strategy keeps them",
    "communication buffers": "buckets in which gradients are reduced, where they stay from the first step on",
    "workspace": "scratch space that the matrix library asks for once and keeps",
    "gathered weights": "weights put together from all ranks' shares while blocks use them, and those fetched ahead",
    "gradients": "of the trained weights, from the backward to the step (with accumulation, through all micro-steps)",
    "reduction buffers": "whole gradients on their way to the ranks that keep them",
    "activations": "what the forward keeps for the backward; with checkpointing a block's input alone",
    "autocast weight copies": "weights copied to the compute dtype, kept until autocast's context ends",
    "images": "pixels of the batch, and what the decoder reads of them, were all of its tokens images'",
    "keys and values": "the cache of the answers that are being sampled",
    "logits and loss": "scores over the whole vocabulary for every token, and what the loss makes of them",
    "working set": "tensors that live only within one block's backward, or within the optimizer's step",
}
HOST_ITEMS: Final = {
    "processes": "Python, torch and its libraries in every rank, and the launcher",
    "reading and encoding rows": "the process that reads the data, and one for each processor that makes tokens of them",
    "order of the rows": "which row comes when, in every rank",
    "weights while loading": "weights that loading converts or casts, and so copies, on every rank at once",
    "copies being broadcast": "flat copies of the first rank's weights, which DDP gives all others when it wraps the model",
    "offloaded masters": "fp32 weights that the optimizer updates on the host",
    "offloaded optimizer states": "the optimizer's states, on the host",
    "offloaded gradients": "gradients that wait for the step on the host; pinned, so each buffer takes a power of two",
    "offloaded parameters": "weights that lie on the host while no block uses them; pinned likewise",
    "copied while being pinned": "a buffer that is made, then copied into pinned memory: both are there for a moment",
    "tensors of the ranks": "on a CPU the host is the device",
    "copies being saved": "weights put together, or copied off the devices, while a checkpoint or the result is written",
    "model being merged": "the exact base and the adapter, put together in one process at the end",
    "formats and what checks them": "the fullest format with the library that reads it back, and logits of the trained model",
}
DISK_ITEMS: Final = {
    "environment": "the wheels of requirements.lock, installed",
    "base model": "the files that are downloaded from the hub",
    "prepared rows": "the dataset as tokens, at most",
    "checkpoints": "weights and optimizer states; two are kept",
    "next checkpoint": "written before the oldest is deleted: what it takes beyond the room the result needs later",
    "checkpoint being uploaded": "rotation may delete it while it is sent: hard links hold its bytes until then",
    "adapter": "the trained adapter",
    "final model": "the trained model, whole",
    "exports being made": "what formats are made from, until all are made",
    "exports": "the other formats that were asked for",
}
