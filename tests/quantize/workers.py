"""A ``python`` that starts a worker of a profile in a moment: forked of a process that has imported the libraries.

A profile has two processes for each method, and each would spend ten seconds on imports. The workers are processes all
the same: what they print, their memory and how they end are their own.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRELOADED = (
    "torch", "transformers", "transformers.models.llama.modeling_llama", "transformers.generation", "accelerate",
    "bitsandbytes", "compressed_tensors", "datasets", "llmcompressor", "gguf", "xllamacpp.xllamacpp",
    "axoc_runtime.quantize.worker",
)  # fmt: skip
PYTHON = """#!{python} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
socket.send_fds(server, [json.dumps([sys.argv[1:], dict(os.environ)]).encode()], [1, 2])
server.shutdown(socket.SHUT_WR)
code = int(server.makefile().read())
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@contextmanager
def forking_python() -> Iterator[str]:
    """The path of that ``python``."""
    with tempfile.TemporaryDirectory() as folder:
        address, python = Path(folder, "server"), Path(folder, "python")
        python.write_text(PYTHON.format(python=sys.executable, address=str(address)))
        python.chmod(0o755)
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, str(address)]
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None and server.stdout.readline() == "ready\n"
            try:
                yield str(python)
            finally:
                server.kill()


def serve(address: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print while they are imported is no answer
    for name in PRELOADED:
        import_module(name)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        print("ready", file=answers, flush=True)
        while True:
            client, _ = server.accept()
            with client:
                client.sendall(str(_run(client)).encode())


def _run(client: socket.socket) -> int:
    """The exit code of a worker; a negative one is the signal that ended it."""
    sent, files, *_ = socket.recv_fds(client, 1 << 20, 2)
    while more := client.recv(1 << 20):
        sent += more
    (_, module, *arguments), environment = json.loads(sent)
    assert module == "axoc_runtime.quantize.worker"
    pid = os.fork()
    if not pid:
        _work(arguments, environment, files)
    for file in files:
        os.close(file)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _work(arguments: list[str], environment: dict[str, str], files: list[int]) -> None:
    code = 1
    try:
        os.environ.clear()
        os.environ.update(environment)
        for file, stream in zip(files, (1, 2), strict=True):
            os.dup2(file, stream)
        code = import_module("axoc_runtime.quantize.worker").main(arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
