# SPDX-License-Identifier: Apache-2.0
"""A Ray cluster of two nodes on one machine, of which one can be killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import ray

_MARK = "AFFECTCODEC_TEST_NODE"
# `ray start` that dies with the tests however they end; what it starts dies with it, by Ray itself.
_START = """
import ctypes, signal
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
from ray.scripts.scripts import main
main()
"""
# Nodes and jobs of one cluster share a token.
ACCESS = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Node:
    """One ``ray start --block`` with all that it brings up."""

    def __init__(self, environment: dict[str, str], log: Path, *arguments: str) -> None:
        self.mark = f"{_MARK}={uuid.uuid4().hex}"
        name, _, value = self.mark.partition("=")
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, "start", "--block", *arguments],
                env={**environment, name: value},
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def processes(self) -> list[int]:
        """The raylet, its workers and what else descends from what carries the mark."""
        found, parents = set(), {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if not entry.name.isdigit():
                    continue
                pid = int(entry.name)
                # The name of a process, in parentheses, may hold spaces.
                stat = (entry / "stat").read_text()
                parents[pid] = int(stat.rpartition(")")[2].split()[1])
                if self.mark.encode() in (entry / "environ").read_bytes():
                    found.add(pid)
        # Ray's workers write their title over their environment.
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return sorted(found)

    def kill(self) -> int:
        """SIGKILL to all of it, as when a machine loses power; how many were hit."""
        hit = 0
        for _ in range(3):  # what was being started meanwhile
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    hit += 1
        self.process.wait(30)
        return hit


@contextlib.contextmanager
def two_nodes(log: Path) -> Iterator[tuple[Node, str, str]]:
    """The second node, and the addresses of the cluster: ``HOST:PORT`` and ``ray://HOST:PORT``.

    Each node has one core. Ray's own names for sockets are long, so its folder lies in a short one.
    """
    folder = tempfile.mkdtemp(prefix="ray")
    environment = {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        # A node counts as lost after 3 s of silence instead of half a minute.
        "RAY_health_check_initial_delay_ms": "5000",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "5000",
        "RAY_health_check_failure_threshold": "3",
        # Half a minute is too short for the server of a client where other tests run.
        "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "180",
        "OMP_NUM_THREADS": "1",
        **ACCESS,
    }
    port, client = free_ports(2)
    # Ray replaces 127.0.0.1 by the address of the machine, and listens there.
    address = f"{ray.util.get_node_ip_address()}:{port}"
    common = ("--num-cpus=1", "--object-store-memory=100000000", "--include-log-monitor=false")
    head = Node(
        environment,
        log,
        *("--head", f"--port={port}", f"--ray-client-server-port={client}"),
        *(f"--temp-dir={folder}", "--include-dashboard=false", "--no-monitor", *common),
    )
    worker = None
    try:
        _wait_for_port(address)
        worker = Node(environment, log, f"--address={address}", *common)
        _wait_for_nodes(address, 2)
        yield worker, address, f"ray://{address.partition(':')[0]}:{client}"
    finally:
        for node in (worker, head):
            if node is not None:
                node.kill()
        _end_all_of(Path(folder))
        shutil.rmtree(folder, ignore_errors=True)


def _end_all_of(folder: Path, seconds: float = 30) -> None:
    """Kill whoever still has a file of a cluster's folder open: each process of it has its log."""
    deadline = time.monotonic() + seconds
    while left := _holders(folder):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {left} of {folder} do not die")
        time.sleep(0.1)


def _holders(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            links = (os.readlink(link) for link in (entry / "fd").iterdir())
            if any(link.startswith(f"{folder}/") for link in links):
                found.append(int(entry.name))
    return found


def _wait_for_port(address: str, seconds: float = 240) -> None:
    host, _, port = address.partition(":")
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 5):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{address}: nobody listens")
        time.sleep(0.5)


def _wait_for_nodes(address: str, count: int, seconds: float = 240) -> None:
    """Return once a cluster has exactly so many nodes alive.

    Raises:
        subprocess.SubprocessError: if it does not get there in time.
    """
    code = (
        "import ray, sys, time\n"
        "ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False)\n"
        "while sum(n['Alive'] for n in ray.nodes()) != int(sys.argv[2]): time.sleep(0.5)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, address, str(count)],
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **ACCESS},
        check=True,
        capture_output=True,
        timeout=seconds,
    )
