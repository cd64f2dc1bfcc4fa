"""Files that others publish: fetched once, checked always, and nothing half-written stays."""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fusewire.errors import InputError
from fusewire.training import durable
from fusewire.training.evaluation.published import read_published

CONTENT = bytes(range(256)) * 10_000
NAME = f"weights-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


class Server(ThreadingHTTPServer):
    """Answers every path that has been asked for; its last part says what with."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[str] = []

    def url(self, folder: str, name: str = NAME) -> str:
        return f"http://127.0.0.1:{self.server_port}/{folder}/{name}"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        folder = self.path.split("/")[1]
        self.server.asked.append(folder)
        if folder == "missing":
            self.send_error(404)
            return
        content = CONTENT[::-1] if folder == "other" else CONTENT
        self.send_response(200)
        if folder != "untold":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:1000] if folder == "cut" else content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_a_file_is_fetched_once(server: Server, kept: Path) -> None:
    for _ in range(2):
        assert read_published(server.url("whole"), "-") == CONTENT
    assert server.asked == ["whole"]
    assert [file.name for file in kept.iterdir()] == [NAME]


def test_its_length_need_not_be_told(server: Server, kept: Path) -> None:
    assert read_published(server.url("untold"), "-") == CONTENT
    assert (kept / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("folder", "complaint"),
    [
        ("missing", "cannot fetch .*: Not Found; put the file there"),
        ("cut", "1000 bytes, is another file or a part of it"),
        ("other", "is another file or a part of it: its SHA-256 does not begin with"),
    ],
)
def test_what_does_not_come_whole_is_not_kept(
    server: Server, kept: Path, folder: str, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint) as refusal:
        read_published(server.url(folder), "name another")
    assert str(kept / NAME) in str(refusal.value)
    assert str(refusal.value).endswith("or name another")
    assert not list(kept.iterdir())
    assert read_published(server.url("whole"), "-") == CONTENT


def test_nobody_answers(kept: Path) -> None:
    with Server() as closed:
        url = closed.url("whole")
    with pytest.raises(InputError, match=r"cannot fetch .*: Connection refused; put the file"):
        read_published(url, "-")
    with pytest.raises(InputError, match=r"cannot fetch http://nowhere\.invalid/.*; put the file"):
        read_published(f"http://nowhere.invalid/{NAME}", "-")
    assert not list(kept.iterdir())


def test_a_kept_file_that_has_changed_is_refused(server: Server, kept: Path) -> None:
    kept.mkdir(parents=True)
    (kept / NAME).write_bytes(CONTENT[1:])
    with pytest.raises(InputError, match=f"{NAME} is not the file that .*; remove it"):
        read_published(server.url("whole"), "-")
    assert not server.asked
    (kept / NAME).write_bytes(CONTENT)
    assert read_published(server.url("whole"), "-") == CONTENT
    assert not server.asked


def test_there_is_no_room(server: Server, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        path.write_bytes(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable, "write_synced", full)
    with pytest.raises(InputError, match=f"cannot write .*{NAME}: No space left on device"):
        read_published(server.url("whole"), "-")
    assert not list(kept.iterdir())


def test_the_folder_cannot_be_made(server: Server, kept: Path) -> None:
    kept.parents[1].write_text("a file where a folder should be")
    with pytest.raises(InputError, match="cannot"):
        read_published(server.url("whole"), "-")
    assert not server.asked
