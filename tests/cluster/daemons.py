"""Starting and stopping daemons of the tests, and waiting for what they do."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def free_port() -> int:
    """Return a port below those of connections: one of these could take it before its daemon does."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def accounts() -> Iterator[None]:
    """Let no other cluster change the machine's accounts meanwhile: useradd and usermod do not wait long."""
    directory = os.open("/etc", os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} not within {seconds} s")
        time.sleep(0.02)


def run(*argv: object, env: Mapping[str, str] | None = None) -> str:
    """Run a command that has to succeed; return what it printed."""
    words = [str(word) for word in argv]
    program = shutil.which(words[0], path=PATH)
    assert program, words[0]
    done = subprocess.run(
        [program, *words[1:]], capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def start(program: str, *arguments: object, env: Mapping[str, str] | None = None) -> None:
    """Start a daemon, which leaves this process by itself."""
    path = shutil.which(program, path=PATH)
    assert path
    subprocess.run([path, *map(str, arguments)], check=True, env=env, cwd="/")


def stop(pid_file: Path, name: str) -> None:
    """Stop a daemon of ours, and no other process that has its number by now."""
    if not pid_file.exists():
        return
    try:
        daemon = psutil.Process(int(pid_file.read_text()))
        if daemon.name() != name:
            return
        daemon.terminate()
        dead = psutil.STATUS_ZOMBIE
        wait_for(lambda: not daemon.is_running() or daemon.status() == dead, 10, name)
    except psutil.NoSuchProcess:
        return
    except TimeoutError:
        daemon.kill()


def write(path: Path, text: str) -> None:
    """Write a file of settings, whose lines may be indented in the test."""
    lines = [line.strip() for line in text.strip().splitlines()]
    path.write_text("\n".join(lines) + "\n")
