"""A Ray cluster of several nodes on this machine: real processes, which one that watches over them starts and ends.

Every node has one core and a cache folder of its own. Drivers are attached to the first one; any other may be killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

import psutil

# As little as Ray can do with: no dashboard, no log monitor, no autoscaler, no statistics, no spare workers. The death
# of a node is noticed after two seconds.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0",
    "RAY_health_check_initial_delay_ms": "0", "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "4",
}  # fmt: skip


class RayCluster:
    """A cluster that lasts as long as a `with` block.

    Attributes:
        address: for RAY_ADDRESS.
        client_address: `ray://HOST:PORT`; with `client`, which takes some seconds more.
        folder: of nodes' cache folders and Ray's files.
        nodes: ids, the first one of the node that drivers are attached to.
    """

    def __init__(self, nodes: int = 3, client: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))
        self.nodes = list[str]()
        self._count, self._client = nodes, client

    def __enter__(self) -> RayCluster:
        socket, log = self.folder / "socket", self.folder / "log"
        environment = {**os.environ, **_QUIET, "RAY_TMPDIR": str(self.folder)}
        with Listener(str(socket)) as listener, log.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(socket), *(["client"] if self._client else [])],
                env=environment, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            self._watcher: Connection = listener.accept()
        for _ in range(self._count):
            self.add()
        self.address, port = self._ask("addresses", None)
        self.client_address = f"ray://127.0.0.1:{port}"
        return self

    def add(self, **environment: str) -> str:
        """Start a node; returns its id."""
        cache = self.folder / f"cache{len(list(self.folder.glob('cache*')))}"
        cache.mkdir()
        node: str = self._ask("add", {"PICS_CACHE": str(cache), **environment})
        self.nodes.append(node)
        return node

    def kill(self, node: str) -> None:
        """End all processes of a node at once; the cluster finds out by itself."""
        self.nodes.remove(node)
        self._ask("kill", node)

    def caches(self) -> list[Path]:
        """The nodes' cache folders."""
        return sorted(self.folder.glob("cache*"))

    def _ask(self, *words: Any) -> Any:
        self._watcher.send(words)
        return self._watcher.recv()

    def __exit__(self, *_: object) -> None:
        self._watcher.close()
        self._process.wait(60)
        shutil.rmtree(self.folder, ignore_errors=True)


def _watch(socket: str, client: bool) -> None:
    """Do what the other side asks for, and end all nodes when it is gone."""
    from ray._private.node import Node
    from ray.cluster_utils import Cluster

    Node.start_api_server = lambda *_, **__: None  # `include_dashboard=False` starts one that serves other things
    Path(os.environ["RAY_TMPDIR"], "ray").mkdir()
    cluster, nodes = Cluster(), dict[str, Any]()
    port = 20000 + os.getpid() % 10000
    head = {"no_monitor": True, "ray_client_server_port": port if client else None}
    with Client(socket) as driver:
        try:
            while True:
                what, about = driver.recv()
                if what == "add":
                    node = cluster.add_node(
                        num_cpus=1, object_store_memory=80 << 20, include_log_monitor=False, env_vars=about,
                        **({} if nodes else head),
                    )  # fmt: skip
                    nodes[node.node_id] = node
                    driver.send(node.node_id)
                elif what == "kill":
                    _kill(nodes.pop(about))
                    driver.send(None)
                else:
                    driver.send((cluster.address, port))
        except EOFError:
            pass
        finally:
            cluster.shutdown()


def _kill(node: Any) -> None:
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in (raylet, *raylet.children(recursive=True)):
        process.kill()


if __name__ == "__main__":
    _watch(sys.argv[1], len(sys.argv) > 2)
