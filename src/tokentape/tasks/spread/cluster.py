"""A Ray cluster to spread work over: one made here for the time of a command, or one that runs already.

What is to be done goes out as map-batches of Ray Data, one piece of work a batch, and comes back in the order in which it went.
A worker that dies is replaced, and what it had in hand is done again; the caller sees each answer once. The pieces are cut by
the caller, so that how many workers there are changes no figure. Nothing of Ray reaches further than this module.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import socket
import sys
import tempfile
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokentape.errors import MissingExtra, RecordingError, Unreachable, UsageError
from tokentape.tasks.spread.crossing import Answer, Maker, Worker, once, packed

__all__ = ["Cluster", "Spread", "cluster"]

OBJECT_STORE_BYTES = 256 << 20
"""Shared memory of a cluster made here: texts as ids go out, figures come back, and neither stays there."""

MOST_BLOCKS = 2000
"""Blocks of work, each a task of Ray's: one of them is what a dead worker costs."""

TRIES = 4
"""How often a block is begun before it is given up: what kills every worker that touches it would go on for ever."""

ANSWERS_S = 5.0
"""How long a cluster's address has to answer."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
"""Nothing is reported to anybody, nothing is drawn or logged on a screen, and devices stay as they were set."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Over what to spread: ``n_workers`` processes (None: one a GPU, else two here, else one a node) of the cluster at
    ``address`` (None: one that is made here, ``"auto"``: the one that runs here), each with so many ``threads`` of torch
    (None: the cores of this machine shared among the workers; on a cluster 1).
    """

    n_workers: int | None = None
    address: str | None = None
    threads: int | None = None

    def check(self, device: str) -> None:
        """Raise UsageError for what cannot be, whatever the cluster."""
        if self.n_workers is not None and self.n_workers < 1:
            raise UsageError(f"{self.n_workers} workers", why="at least one has to do the work", fix="--ray-workers 2")
        if device.startswith("cuda:"):
            raise UsageError(
                f"--device {device} together with --ray",
                why="Ray gives each worker a GPU of its own",
                fix="--device cuda",
            )
        host, _, port = (self.address or "auto:0").rpartition(":")
        if self.address not in (None, "auto") and ("/" in host or not host or not port.isdecimal()):
            raise UsageError(
                f"--ray-address {self.address}: no address of a cluster",
                why="that is its host and port, as `ray status` or whoever started it tells",
                fix="--ray-address HOST:6379, or auto for the cluster that runs here",
            )


@dataclass(frozen=True, slots=True)
class Shared:
    """Bytes in the cluster's memory; called in a worker, it gives them."""

    where: Any

    def __call__(self) -> bytes:
        import ray

        content: bytes = ray.get(self.where)
        return content


class Cluster:
    """A cluster that is connected. ``n_workers`` take part, each with ``threads`` of torch and ``n_gpus`` devices (0 or 1)."""

    def __init__(self, ray: Any, n_workers: int, threads: int, n_gpus: int) -> None:
        self._ray = ray
        self.n_workers = n_workers
        self.threads = threads
        self.n_gpus = n_gpus

    def once(self, make: Maker, work: Any) -> Any:
        """One piece of work in a process of its own, which then ends and leaves its memory to the workers."""
        task = self._ray.remote(num_cpus=1, num_gpus=self.n_gpus, max_calls=1, max_retries=TRIES - 1)(once)
        with self._failing():
            answer: Answer = self._ray.get(task.remote(make, work))
            return answer.found()

    def shared(self, content: bytes) -> Shared:
        """Bytes put where every worker of this cluster reads them, once a node."""
        return Shared(self._ray.put(content))

    def each(self, make: Maker, work: Sequence[Any]) -> Iterator[Any]:
        """What ``make()(one)`` gives for each ``one`` of ``work``, in that order, as soon as it is there.

        Each worker calls ``make`` once. The first refusal (a :class:`~tokentape.errors.TokentapeError`) is raised where its
        answer would come. Raises RecordingError where workers die over the same work again and again.
        """
        n_answers = 0
        with self._failing(), contextlib.closing(self._answers(make, work)) as answers:
            for number, answer in answers:
                if number != n_answers:
                    raise RecordingError(
                        f"Ray gave answer {number} where answer {n_answers} was due",
                        why="each is wanted once, and in order",
                        fix="--resume goes on with what is kept; please report it",
                    )
                n_answers += 1
                yield pickle.loads(answer).found()
        if n_answers != len(work):
            raise RecordingError(
                f"Ray gave {n_answers} answers of {len(work)}",
                why="its workers ended before their work did",
                fix="--resume goes on with what is kept",
            )

    def _answers(self, make: Maker, work: Sequence[Any]) -> Generator[tuple[int, bytes]]:
        """The numbers and answers of Ray Data's map-batches, in order."""
        import pyarrow as pa

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray Data deprecates parts of itself while it is imported
            import ray.data

            context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_options.preserve_order = True
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        n_each = -(-len(work) // MOST_BLOCKS)
        blocks = [
            pa.table(
                {
                    "number": pa.array(range(start, min(start + n_each, len(work)))),
                    "work": pa.array([packed(one) for one in work[start : start + n_each]], pa.large_binary()),
                }
            )
            for start in range(0, len(work), n_each)
        ]
        done = ray.data.from_arrow(blocks).map_batches(
            Worker,
            batch_size=1,
            batch_format="pyarrow",
            # more workers than blocks would have nothing to do, and Ray warns of them
            compute=ray.data.ActorPoolStrategy(
                size=max(1, min(self.n_workers, len(blocks))), max_tasks_in_flight_per_actor=2
            ),
            fn_constructor_args=(make,),
            num_cpus=1,
            num_gpus=self.n_gpus,
            max_restarts=-1,
            max_task_retries=TRIES - 1,
        )
        table: Any
        for table in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from zip(table["number"].to_pylist(), table["answer"].to_pylist(), strict=True)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Turn what Ray raises into an error of our own."""
        try:
            yield
        except self._ray.exceptions.RayError as error:
            last = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
            raise RecordingError(
                f"the workers did not get through after {TRIES} tries",
                why=f"{type(error).__name__}: {last.strip()[:300]}",
                fix="with -o PATH --resume the same command goes on; less memory: --ray-workers 1, --batch-tokens 256",
            ) from error


@contextlib.contextmanager
def cluster(spread: Spread, device: str = "auto") -> Iterator[Cluster]:
    """The cluster to spread over; one that is made for this ends with it, one that was there is left.

    ``device`` is that of :func:`tokentape.local`. Raises MissingExtra without Ray, Unreachable where no cluster is at the
    address, UsageError where it is too small.
    """
    spread.check(device)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    ray = _required()
    if ray.is_initialized():
        yield _fitting(ray, spread, device)
        return
    # its sockets are in there too, and their paths must be short
    with tempfile.TemporaryDirectory(prefix="tt-ray-", ignore_cleanup_errors=True) as folder:
        _connect(ray, spread, folder)
        try:
            yield _fitting(ray, spread, device)
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of processes that it is just ending
                ray.shutdown()


def _required() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray
            from pyarrow import Table  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            "spreading over workers needs Ray, which is not installed",
            why="it is in the extra [ray]; without --ray one process does the same",
            fix="pip install 'tokentape[ray]'",
        ) from error
    return ray


def _connect(ray: Any, spread: Spread, folder: str) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if spread.address not in (None, "auto"):
        _refuse_silent(str(spread.address))
    try:
        with warnings.catch_warnings(), _stderr_into(Path(folder) / "stderr.txt"):
            warnings.simplefilter("ignore")
            if spread.address is not None:
                ray.init(address=spread.address, **quiet)
            else:
                # more than its workers need: a cluster as large as its actors would have no room for a task
                n_cpus = 1 + max(spread.n_workers or 0, os.cpu_count() or 1)
                ray.init(
                    address="local",
                    num_cpus=n_cpus,
                    include_dashboard=False,
                    _temp_dir=folder,
                    object_store_memory=OBJECT_STORE_BYTES,
                    **quiet,
                )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise _unreachable(spread.address, " ".join(str(error).split())[:300]) from error
    except Exception as error:  # Ray raises a bare one where a part of it does not start
        if type(error) is not Exception:
            raise
        raise _unreachable(spread.address, " ".join(str(error).split())[:300]) from error


@contextlib.contextmanager
def _stderr_into(path: Path) -> Iterator[None]:
    """What this process says on stderr goes into a file: Ray's own core says there that it has been told to be quiet."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with path.open("wb") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def _refuse_silent(address: str) -> None:
    """Raise Unreachable for an address where nobody answers, long before Ray would."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_S).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, str(error)) from error


def _unreachable(address: str | None, why: str) -> Unreachable:
    if address is None:
        return Unreachable("Ray did not start here", why=why, fix="leave --ray out: one process gives the same")
    return Unreachable(
        f"no Ray cluster at {address}", why=why, fix="ray start --head there; without --ray-address one is made here"
    )


def _fitting(ray: Any, spread: Spread, device: str) -> Cluster:
    """As many workers as were asked for, where the cluster has room for them."""
    there: Mapping[str, float] = ray.cluster_resources()
    n_gpus = 0 if device in ("cpu", "mps") else int(there.get("GPU", 0))
    if device == "cuda" and not n_gpus:
        raise MissingExtra(
            "the cluster has no GPU", why="--device cuda asks for one for each worker", fix="--device cpu"
        )
    local = spread.address is None
    n_nodes = sum(1 for node in ray.nodes() if node.get("Alive"))
    n_workers = spread.n_workers or n_gpus or (2 if local else n_nodes)
    room = n_gpus or int(there.get("CPU", 0)) - (0 if local else 1)
    if n_workers > room:
        # Ray would wait for ever for what never comes free
        kind = "GPUs" if n_gpus else "processors, one of them for handing out work"
        raise UsageError(
            f"{n_workers} workers are more than the cluster has room for",
            why=f"it has {int(there.get('GPU' if n_gpus else 'CPU', 0))} {kind}",
            fix=f"--ray-workers {max(room, 1)}",
        )
    threads = spread.threads or (max(1, (os.cpu_count() or 1) // n_workers) if local else 1)
    return Cluster(ray, n_workers, threads, min(n_gpus, 1))
