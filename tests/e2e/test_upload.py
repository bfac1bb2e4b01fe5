"""Uploads to a real S3 server, which is moto's, on loopback: stopped half way, nothing is lost and nothing sent twice."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axoc_runtime.checkpoint.manifest import MARKER, Manifest, digests, write_manifest
from e2e.conftest import Launch, parameters
from e2e.test_told import ALONE, install_callback

pytestmark = pytest.mark.slow

URL = "s3://bucket/runs/one"
MIB = 1 << 20


class Wire:
    """A port that leads to the server, until so many bytes have gone that way: then all is cut, until it is mended."""

    def __init__(self, target: int) -> None:
        self.target, self.left = target, float("inf")
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]
        self.open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self.server.accept()
            try:
                far = None if self.left <= 0 else socket.create_connection(("127.0.0.1", self.target))
            except OSError:  # the server is stopped
                far = None
            if far is None:
                near.close()
                continue
            self.open += [near, far]
            threading.Thread(target=self._pump, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        try:
            while self.left > 0 and (data := source.recv(1 << 16)):
                self.left -= len(data) if counts else 0
                sink.sendall(data)
        except OSError:
            pass
        for end in self.open if self.left <= 0 else (source, sink):
            with_both_ways_closed(end)


def with_both_ways_closed(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        end.close()


class S3:
    """moto's server in a process of its own, and what it holds."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.port = free_port()
        self.environment = environment
        self.start()
        self.wire = Wire(self.port)
        environment["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{self.wire.port}"
        environment |= {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "hunter2hunter2",
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        line = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "moto does not start"
                time.sleep(0.1)
        self.client().create_bucket(Bucket="bucket")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def client(self) -> Any:
        from botocore.session import get_session

        return get_session().create_client(
            "s3", region_name="us-east-1", endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id="testing", aws_secret_access_key="testing",
        )  # fmt: skip

    def objects(self) -> dict[str, Any]:
        """Path below the URL -> ETag and time of its last change."""
        found = self.client().list_objects_v2(Bucket="bucket").get("Contents", [])
        return {o["Key"].removeprefix("runs/one/"): (o["ETag"], o["LastModified"]) for o in found}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def s3(environment: dict[str, str]) -> Iterator[S3]:
    server = S3(environment)
    yield server
    server.stop()


def checkpoint(folder: Path, sizes: dict[str, int]) -> Path:
    """A complete one of files of these sizes, which no compression would shorten."""
    folder.mkdir(parents=True)
    for name, size in sizes.items():
        (folder / name).write_bytes(name.encode().ljust(64, b"-") * (size // 64))
    files = digests(folder, sizes)
    write_manifest(folder, Manifest(global_step=2, strategy="ddp", world_size=2, same={}, resume={}, files=files))
    return folder


def test_a_server_that_is_lost_half_way(work: Path, launched: Launch, environment: dict[str, str], s3: S3) -> None:
    """A file of one part has arrived, one of several is on its way when the wire is cut."""
    environment["AXOC_UPLOAD_PATIENCE_SECONDS"] = "4"
    folder = checkpoint(work / "out" / "checkpoint-2", {"a.bin": 8 * MIB, "b.bin": 160 * MIB, "c.bin": 2 * MIB})
    s3.wire.left = 60 * MIB
    lost = launched("upload", upload_to=URL)
    assert lost.returncode == 17, lost.stderr
    assert "not there yet: checkpoint-2" in lost.stderr and "--upload sends the rest" in lost.stderr
    assert "hunter2" not in lost.stderr + lost.stdout and "Traceback" not in lost.stderr
    before = s3.objects()
    assert set(before) == {"checkpoint-2/a.bin"}
    assert {p.name for p in folder.iterdir()} == {"a.bin", "b.bin", "c.bin", MARKER}
    s3.wire.left = float("inf")
    done = launched("upload", upload_to=URL)
    assert done.returncode == 0, done.stderr
    assert "(162.0 MiB sent now)" in done.stdout
    after = s3.objects()
    assert after["checkpoint-2/a.bin"] == before["checkpoint-2/a.bin"]
    assert set(after) == {f"checkpoint-2/{name}" for name in ("a.bin", "b.bin", "c.bin", MARKER)}
    assert after["checkpoint-2/b.bin"][0].endswith('-4"'), "in four parts of 50 MiB at most"
    last = max(after, key=lambda name: after[name][1])
    assert after[f"checkpoint-2/{MARKER}"][1] == after[last][1]
    assert "(0.0 MiB sent now)" in launched("upload", upload_to=URL).stdout


WAITS = """
import time
from transformers import TrainerCallback

class Mine(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        journal = f"{args.output_dir}/.uploaded.json"
        while state.global_step == 2 and not __import__("os").path.exists(journal):
            time.sleep(0.1)
"""


def test_training_outlives_its_store_and_goes_on_from_it_on_a_new_machine(
    work: Path, tiny: Path, launched: Launch, environment: dict[str, str], s3: S3
) -> None:
    """The wire is cut when half of the first checkpoint is there, the server loses all it held, and comes back."""
    install_callback(work, WAITS)
    environment["PYTHONPATH"] += f":{work}"
    environment["AXOC_UPLOAD_PATIENCE_SECONDS"] = "60"
    job = {"upload_to": URL, "expect__trainable_parameters": parameters(tiny), "training__save_steps": 1}
    job |= {f"distributed__{k}": v for k, v in ALONE.items()} | {"training__global_batch_size": 2}
    assert launched("prepare", **job).returncode == 0
    shutil.copytree(work / "out" / ".prepared", work / "prepared")
    s3.wire.left = MIB
    trained = launched("train", **job)
    assert trained.returncode == 0, trained.stderr[-3000:]
    assert f"checkpoint-4 is in {URL}" not in trained.stderr
    whole = json.loads((work / "out" / "metrics.json").read_text())
    assert whole["steps"] == 4
    assert sorted(p.name for p in (work / "out").glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-4"]
    assert not [name for name in s3.objects() if name.endswith(MARKER)]
    s3.stop()
    s3.start()
    s3.wire.left = float("inf")
    sent = launched("upload", **job)
    assert sent.returncode == 0, sent.stderr
    there = s3.objects()
    assert {f"checkpoint-{n}/{MARKER}" for n in (3, 4)} | {"metrics.json", "final/model.safetensors"} <= set(there)
    new_machine(s3, work)
    assert launched("fetch", "--resume", **job).returncode == 0
    assert [p.name for p in (work / "out").glob("checkpoint-*")] == ["checkpoint-3"]
    shutil.copytree(work / "prepared", work / "out" / ".prepared")
    resumed = launched("train", "--resume", **job)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    found = json.loads((work / "out" / "metrics.json").read_text())
    assert found["steps_this_run"] == 1
    assert found["eval_loss_after"] == pytest.approx(whole["eval_loss_after"], abs=1e-6)


def new_machine(s3: S3, work: Path) -> None:
    """Nothing is here, and the last checkpoint had not arrived whole there."""
    shutil.rmtree(work / "out")
    for name in (f"checkpoint-4/{MARKER}", "metrics.json"):
        s3.client().delete_object(Bucket="bucket", Key=f"runs/one/{name}")
