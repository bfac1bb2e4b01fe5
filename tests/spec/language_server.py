"""npm's yaml-language-server, which VS Code's YAML extension runs, spoken to over its standard input and output."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any


class LanguageServer:
    """One document at a time; positions are lines and columns from 0."""

    def __init__(self, package: Path, folder: Path) -> None:
        node = shutil.which("node")
        assert node is not None
        command = [node, str(package / "bin" / "yaml-language-server"), "--stdio"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.folder, self.uri = folder.as_uri(), ""
        self.number = 0
        capabilities = {"textDocument": {"completion": {"completionItem": {"documentationFormat": ["markdown"]}}}}
        self.ask("initialize", {"processId": None, "rootUri": folder.as_uri(), "capabilities": capabilities})
        self.tell("initialized", {})
        options = {"validate": True, "hover": True, "completion": True, "schemaStore": {"enable": False}}
        self.tell("workspace/didChangeConfiguration", {"settings": {"yaml": options}})

    def __enter__(self) -> LanguageServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.terminate()
        self.process.wait(10)

    def open(self, text: str) -> list[dict[str, Any]]:
        """The diagnostics of a document, under a name of its own: each is checked once, a moment after it is opened."""
        self.number += 1
        self.uri = f"{self.folder}/spec-{self.number}.yaml"
        document = {"uri": self.uri, "languageId": "yaml", "version": 1, "text": text}
        self.tell("textDocument/didOpen", {"textDocument": document})
        while True:
            message = self._read()
            if message.get("method") == "textDocument/publishDiagnostics" and message["params"]["uri"] == self.uri:
                found: list[dict[str, Any]] = message["params"]["diagnostics"]
                return found

    def completions(self, line: int, column: int) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.ask("textDocument/completion", self._at(line, column))["items"]
        return items

    def hover(self, line: int, column: int) -> str:
        found = self.ask("textDocument/hover", self._at(line, column))
        return "" if found is None else str(found["contents"]["value"])

    def _at(self, line: int, column: int) -> dict[str, Any]:
        return {"textDocument": {"uri": self.uri}, "position": {"line": line, "character": column}}

    def tell(self, method: str, params: Any) -> None:
        self._write({"jsonrpc": "2.0", "method": method, "params": params})

    def ask(self, method: str, params: Any) -> Any:
        self.number += 1
        mine = self.number
        self._write({"jsonrpc": "2.0", "id": mine, "method": method, "params": params})
        while True:
            message = self._read()
            if message.get("id") == mine and "method" not in message:
                assert "error" not in message, message
                return message["result"]

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        length = 0
        while line := self.process.stdout.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        message: dict[str, Any] = json.loads(self.process.stdout.read(length))
        if "id" in message and "method" in message:  # the server asks: it gets nothing, which is its default
            answer = (
                [None] * len(message["params"]["items"]) if message["method"] == "workspace/configuration" else None
            )
            self._write({"jsonrpc": "2.0", "id": message["id"], "result": answer})
        return message

    def _write(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        content = json.dumps(message).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(content) + content)
        self.process.stdin.flush()
