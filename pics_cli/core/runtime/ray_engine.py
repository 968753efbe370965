"""An engine of worker processes on a Ray cluster: they stay, follow the cluster's size, and are replaced when lost.

Each worker is an actor that holds its cores or GPU and runs one block at a time, so that what a process has opened (an
index, a model) serves all of its blocks. Blocks wait here, not in Ray: as many are with the cluster as have a worker.
Workers beyond what fits wait for resources, which an autoscaler sees as demand.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

from pics_cli import __version__
from pics_cli.core.runtime import ray_worker
from pics_cli.core.runtime.engines import Engine, PictureCounter
from pics_cli.core.runtime.ray_connection import connect
from pics_cli.core.runtime.requirements import Requirements
from pics_cli.errors import FAILED, PicsError

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

# A block that ends its worker this often is at fault itself. Nodes may go more often: some are lent for a while only.
_MAX_DEATHS, _MAX_NODE_LOSSES = 3, 20
_MAX_FAILED_STARTS = 8  # in a row
# Seconds: between two looks at the cluster; for nodes to answer before the work; between lines while waiting; for
# workers to end.
_LOOK, _ANSWER, _SAY, _END = 5.0, 60.0, 60.0, 5.0
_SHOWN_FAULTS = 8
# What a worker asks for, and what nodes call it.
_RESOURCES = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}


@dataclass(eq=False)
class _Task:
    """A call; `ended_on` are the nodes of workers that ended during it."""

    future: Future[Any]
    call: bytes
    ended_on: list[str] = field(default_factory=list)


@dataclass(eq=False)
class _Worker:
    """An actor; node and names are known once it runs."""

    actor: Any
    node: str = ""
    node_name: str = "a node"
    pid: int = 0
    task: _Task | None = None


@contextlib.contextmanager
def ray_engine(
    choice: str,
    workers: int | None,
    counter: PictureCounter,
    requirements: Requirements,
    resources: Mapping[str, float],
    gpu_resources: Mapping[str, float] | None = None,
) -> Iterator[Engine]:
    """Workers on a Ray cluster for the time of a `with` block; leaving by an exception stops them first.

    Args:
        choice: see `ray_connection.connect`.
        workers: at most so many; None: as many as the cluster has room for.
        counter: counts pictures as blocks return them.
        requirements: checked on every node before the work, and on nodes that join later.
        resources: `num_cpus` and `num_gpus` of a worker.
        gpu_resources: likewise, where the cluster has a GPU; None: the same.

    Raises:
        PicsError: no cluster, or a node of it cannot do the job.
    """
    with connect(choice, workers) as joinable, ray_worker.prepare_setup(requirements) as setup:
        chosen = gpu_resources if gpu_resources is not None and _has_gpu() else resources
        memory = {"memory": requirements.memory} if requirements.memory else {}
        engine = RayEngine(workers, counter, setup, {**chosen, **memory}, joinable)
        try:
            engine.start()
            yield engine
        except BaseException:
            engine.shutdown(wait=False, cancel_futures=True)
            raise
        engine.shutdown()


def _has_gpu() -> bool:
    import ray

    return any(node["Alive"] and node["Resources"].get("GPU", 0) >= 1 for node in ray.nodes())


class RayEngine(Engine):
    """See `ray_engine`. One thread has all of the state; events reach it through a queue, as functions to call."""

    def __init__(
        self,
        workers: int | None,
        counter: PictureCounter,
        setup: ray_worker.Setup,
        resources: Mapping[str, float],
        joinable: bool,
    ) -> None:
        self._asked, self._counter, self._setup, self._resources = workers, counter, setup, dict(resources)
        self._joinable, self.cores = joinable, int(resources["num_cpus"])
        self._events: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._pending: deque[_Task] = deque()
        self._workers: set[_Worker] = set()
        self._unfit: list[_Worker] = []  # they hold their places on bad nodes, where others would go
        self._idle: list[_Worker] = []
        self._nodes: dict[str, Mapping[str, Any]] = {}
        self._names: dict[str, str] = {}  # of nodes that had workers
        self._lost_nodes: set[str] = set()
        self._checked: set[str] = set()
        self._pieces: dict[int, list[tuple[str, Any]]] = {}
        self._failed_starts = 0
        self._probing: set[_Worker] = set()
        self._faults: list[str] = []
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._ending = False
        self._class = _worker_class()
        self._look()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def slots(self) -> int:
        return self._wanted

    def start(self) -> None:
        """Wait until every node has answered whether it can do the job.

        Raises:
            PicsError: one cannot.
        """
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        from ray import cloudpickle

        task = _Task(Future(), cloudpickle.dumps((fn, args, kwargs)))
        self._events.put(partial(self._enqueue, task))
        if self._failure is not None:
            _set_exception(task, self._failure)
        return task.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002  (it always waits)
        """End the workers, after the blocks that were submitted; with `cancel_futures` in the middle of them."""
        if self._thread.is_alive():
            self._events.put(partial(self._end, cancel_futures))
            self._thread.join()

    # What follows runs in the engine's thread.

    def _run(self) -> None:
        try:
            self._probe_nodes()
            looked = said = time.monotonic()
            while not self._ending or (self._busy() and time.monotonic() < self._deadline):
                with contextlib.suppress(Empty):
                    self._events.get(timeout=_END if self._ending else _LOOK)()
                now = time.monotonic()
                if now - looked >= _LOOK:
                    looked = now
                    self._look()
                    self._finish_probing(now)
                    self._grow()
                    if self._idle or self._busy():
                        said = now
                    elif now - said >= _SAY:
                        said = now
                        logger.warning("waiting for a node of the cluster with %s for a worker", self._resource_text())
        except BaseException as error:
            self._fail(error)
        finally:
            self._stop_workers()

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.task is not None]

    def _look(self) -> None:
        """At the cluster: which nodes there are, and how many workers they have room for."""
        import ray

        self._nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        for node in self._names.keys() - self._nodes.keys() - self._lost_nodes:
            self._lost_nodes.add(node)
            logger.warning("lost %s: what ran there runs again elsewhere", self._names[node])
        room = sum(self._room(node) for node in self._nodes.values())
        beyond = max(1, room // 8) if self._joinable else 0
        self._wanted = self._asked or max(1, room + beyond)

    def _room(self, node: Mapping[str, Any]) -> int:
        has = {name: node["Resources"].get(word, 0) for name, word in _RESOURCES.items()}
        return min(int(has[name] // needed) for name, needed in self._resources.items() if needed)

    def _resource_text(self) -> str:
        shown = {name: f"{number:g}" for name, number in self._resources.items() if number}
        if "memory" in shown:
            shown["memory"] = f"{self._resources['memory'] / 1e9:,.1f} GB of"
        return " and ".join(f"{text} free {_RESOURCES[name]}" for name, text in shown.items())

    def _probe_nodes(self) -> None:
        """A worker on every node; what it says of its node decides whether the work begins."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._deadline = time.monotonic() + _ANSWER
        for node in [node for node, entry in self._nodes.items() if self._room(entry)][: self._asked]:
            self._probing.add(self._add_worker(NodeAffinitySchedulingStrategy(node, soft=False)))
        self._finish_probing(time.monotonic())

    def _finish_probing(self, now: float) -> None:
        late = now > self._deadline and bool(self._idle or self._faults)  # the rest is busy with other jobs
        if self._ready.is_set() or (self._probing and not late):
            return
        if self._faults:
            more = f"\n  and {len(self._faults) - _SHOWN_FAULTS} more" if len(self._faults) > _SHOWN_FAULTS else ""
            raise PicsError(
                "nodes of the cluster cannot do this job:\n  " + "\n  ".join(self._faults[:_SHOWN_FAULTS]) + more,
                f"every node needs pics {__version__} with the same libraries, and the same folders",
            )
        self._probing.clear()
        self._ready.set()
        self._assign()
        self._grow()

    def _add_worker(self, strategy: Any = "DEFAULT") -> _Worker:
        from ray import cloudpickle

        actor = self._class.options(scheduling_strategy=strategy, **self._resources).remote()
        worker = _Worker(actor)
        self._workers.add(worker)
        self._call(worker, self._started, "start", __version__, cloudpickle.dumps(self._setup))
        return worker

    def _grow(self) -> None:
        if self._ready.is_set() and not self._ending and len(self._workers) < self._wanted:
            needed = min(self._wanted, len(self._pending) + len(self._busy()))
            for _ in range(needed - len(self._workers)):
                self._add_worker()

    def _call(self, worker: _Worker, then: Callable[[_Worker, Any], None], method: str, *arguments: Any) -> None:
        """Call a worker's method; the event that follows is its result, handed to `then`, or its error."""

        def answered(future: Future[Any]) -> None:
            self._events.put(partial(self._answered, worker, then, future))

        getattr(worker.actor, method).remote(*arguments).future().add_done_callback(answered)

    def _answered(self, worker: _Worker, then: Callable[[_Worker, Any], None], future: Future[Any]) -> None:
        from ray.exceptions import RayError, RayTaskError

        error = future.exception()
        if error is None:
            then(worker, future.result())
        elif isinstance(error, RayTaskError):
            cause = error.cause if isinstance(error.cause, Exception) else RuntimeError(str(error))
            cause.__cause__ = _Remote(str(error))
            if worker.task is None:
                self._refuse(worker, [str(cause)])
            else:
                task, worker.task = worker.task, None
                task.future.set_exception(cause)
                self._give(worker)
        elif isinstance(error, RayError):
            self._lose(worker, error)
        elif not isinstance(error, ConnectionError):
            raise error
        else:
            text = " ".join(str(error).split())
            hint = "run the same command again: it resumes"
            raise PicsError(f"the connection to the Ray cluster is lost: {text}", hint, FAILED)

    def _started(self, worker: _Worker, answer: Mapping[str, Any]) -> None:
        worker.node, worker.pid, self._failed_starts = answer["node"], answer["pid"], 0
        worker.node_name = self._names[worker.node] = f"node {worker.node[:8]} ({answer['host']})"
        if answer["faults"]:
            self._refuse(worker, answer["faults"])
        elif self._setup.requirements.built:
            self._call(worker, self._told, "lacks", worker.node not in self._checked)
            self._checked.add(worker.node)
        else:
            self._give(worker)

    def _told(self, worker: _Worker, lacking: list[int]) -> None:
        import ray

        for number in lacking:
            built = self._setup.requirements.built[number]
            if number not in self._pieces:
                logger.info("copying what was made from %s to nodes that lack it", built.path)
                self._pieces[number] = [(name, ray.put(data)) for name, data in built.pack()]
            logger.debug("copying to %s", worker.node_name)
        if lacking:
            pieces = [(number, self._pieces[number]) for number in lacking]
            self._call(worker, lambda worker, _: self._give(worker), "install", pieces)
        else:
            self._give(worker)

    def _refuse(self, worker: _Worker, faults: list[str]) -> None:
        """Take no work to the worker's node."""
        line = f"{worker.node_name}: {'; '.join(faults)}"
        self._workers.discard(worker)
        self._unfit.append(worker)
        if self._ready.is_set():
            logger.warning("left out of the work: %s", line)
            self._grow()
        else:
            self._faults.append(line)
            self._probing.discard(worker)
            self._finish_probing(time.monotonic())

    def _give(self, worker: _Worker) -> None:
        """The worker can do the next block."""
        self._probing.discard(worker)
        self._idle.append(worker)
        self._finish_probing(time.monotonic())
        self._assign()

    def _assign(self) -> None:
        while self._ready.is_set() and self._idle and self._pending:
            worker, task = self._idle.pop(), self._pending.popleft()
            worker.task = task
            self._call(worker, self._done, "run", task.call)

    def _done(self, worker: _Worker, result: tuple[Any, int, int]) -> None:
        task, worker.task = worker.task, None
        value, done, kept = result
        self._counter.add(done, kept)
        self._give(worker)
        assert task is not None
        task.future.set_result(value)

    def _enqueue(self, task: _Task) -> None:
        self._pending.append(task)
        self._assign()
        self._grow()

    def _lose(self, worker: _Worker, error: Exception) -> None:
        """A worker's process or node is gone: its block goes to another."""
        import ray
        from ray.exceptions import OutOfMemoryError

        self._workers.discard(worker)
        self._probing.discard(worker)
        with contextlib.suppress(Exception):
            ray.kill(worker.actor)  # one that cannot be reached may still be at work
        task, worker.task = worker.task, None
        if self._ending:
            return
        self._look()
        reason = "out of memory" if isinstance(error, OutOfMemoryError) else "it ended unexpectedly"
        if worker.node in self._nodes:  # or its node is lost, too, and that is not known yet
            again = "; its block runs again" if task else ""
            logger.warning("lost worker %d of %s: %s%s", worker.pid, worker.node_name, reason, again)
        if task is None:
            self._failed_starts += 1
            if self._failed_starts >= _MAX_FAILED_STARTS:
                text = " ".join(str(error).split())
                raise PicsError(f"{self._failed_starts} workers in a row ended before their first block: {text}")
        else:
            task.ended_on.append(worker.node)
            blameless = sum(node not in self._nodes for node in task.ended_on)
            if len(task.ended_on) - blameless < _MAX_DEATHS and blameless < _MAX_NODE_LOSSES:
                self._pending.appendleft(task)
            else:
                text = f"{len(task.ended_on)} workers ended during the same block, the last one on {worker.node_name}"
                hint = "run the same command again with fewer --workers, or nodes with more memory: it resumes"
                why = f"{reason}; often a machine runs out of memory"
                _set_exception(task, PicsError(f"{text}: {why}", hint, FAILED))
        self._finish_probing(time.monotonic())
        self._assign()
        self._grow()

    def _end(self, cancel: bool) -> None:
        if not cancel and (self._pending or self._busy()):
            threading.Timer(0.05, self._events.put, [partial(self._end, cancel)]).start()
            return
        self._ending = True
        for task in self._pending:
            task.future.cancel()
        self._pending.clear()
        for worker in self._busy():
            worker.actor.stop.remote()  # the block's call fails when the process is gone, and not before
        self._deadline = time.monotonic() + _END

    def _fail(self, error: BaseException) -> None:
        """Every block ends with the error."""
        self._failure = error
        self._ready.set()
        for task in (*self._pending, *(worker.task for worker in self._workers if worker.task is not None)):
            _set_exception(task, error)
        while not self._events.empty():  # what was submitted meanwhile
            event = self._events.get()
            if isinstance(event, partial) and event.func == self._enqueue:
                _set_exception(event.args[0], error)

    def _stop_workers(self) -> None:
        import ray

        for worker in (*self._workers, *self._unfit):
            with contextlib.suppress(Exception):
                ray.kill(worker.actor)


def _set_exception(task: _Task, error: BaseException) -> None:
    with contextlib.suppress(InvalidStateError):  # it is done, or was cancelled
        task.future.set_exception(error)


class _Remote(Exception):
    """The traceback of a worker, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _worker_class() -> Any:
    """The class of worker actors. It is made in a function so that it travels by value: a node without pics answers."""
    import ray

    class Worker:
        def start(self, version: str, setup: bytes) -> dict[str, Any]:
            """Which process on which node it is, and what the node lacks."""
            import os
            import socket

            import ray

            node = ray.get_runtime_context().get_node_id()
            here = {"node": node, "host": socket.gethostname(), "pid": os.getpid()}
            try:
                import pics_cli

                if pics_cli.__version__ != version:
                    return {**here, "faults": [f"pics {pics_cli.__version__} instead of {version}"]}
                from pics_cli.core.runtime import ray_worker
            except ImportError as error:
                return {**here, "faults": [f"pics cannot be loaded there: {error}"]}
            return {**here, "faults": ray_worker.start(setup)}

        def lacks(self, verify: bool) -> list[int]:
            from pics_cli.core.runtime import ray_worker

            return ray_worker.lacks(verify)

        def install(self, pieces: list[tuple[int, list[tuple[str, Any]]]]) -> None:
            import ray

            from pics_cli.core.runtime import ray_worker

            for number, parts in pieces:
                ray_worker.install(number, ((name, ray.get(ref)) for name, ref in parts))

        def run(self, call: bytes) -> tuple[Any, int, int]:
            from pics_cli.core.runtime import ray_worker

            return ray_worker.run(call)

        @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]  # ray is typed in part
        def stop(self) -> None:
            """End at once, in the middle of a block."""
            import os

            os._exit(0)

    return ray.remote(concurrency_groups={"control": 1})(Worker)
