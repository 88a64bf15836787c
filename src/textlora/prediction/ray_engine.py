"""The same chunks on Ray Data: one reader, workers that answer, and this process that writes.

Only texts and answers travel. This process reads the input too, and alone writes output and
journal, in order: a worker that dies is replaced, and its chunk answered again. Run folder and
input must be readable on every machine under the same path. The `ray` extra installs what this
needs.
"""

import itertools
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from textlora.errors import SettingsError, UnfinishedError, shorten_message
from textlora.prediction import shards
from textlora.prediction.file_prediction import open_input
from textlora.prediction.output_columns import FileOptions
from textlora.prediction.predictor import Predictor, Probabilities
from textlora.settings import BackendName
from textlora.system.text_stream import STREAM

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report its use over the network
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of a change
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its log goes to stderr, among ours
try:
    import ray
    from ray._private import ray_constants
    from ray.data import DataContext, Datasource, ReadTask, read_datasource
    from ray.data.block import BlockMetadata
except ImportError:
    raise SettingsError(
        "--engine: Ray is not installed; run pip install 'textlora[ray]', or leave --engine away"
    ) from None

# More cores for one worker gain less and less; fewer hold more copies of the model.
_WORKER_CPUS = 4
_READER_CPUS = 0.01  # it waits for the workers most of the time
_CONNECT_S = 5
_LOCALHOST = "127.0.0.1"


class RayEngine:
    """Answers chunks on the cluster at `address`, or on one started here for this process alone."""

    def __init__(self, run: Path, backend: BackendName, address: str | None) -> None:
        self._run, self._backend, self._address = run, backend, address

    def __call__(
        self, sources: list[Path], options: FileOptions, done: frozenset[int]
    ) -> Generator[tuple[int, Probabilities]]:
        """Numbers and answers of the chunks that are due, in order.

        Raises:  SettingsError for input that cannot be read elsewhere, or an address without a
        cluster; UnfinishedError for what fails there.
        """
        if STREAM in sources:
            raise SettingsError("--input: - cannot be read by --engine ray; name a file")
        files = [source.resolve() for source in sources]
        with ExitStack() as open_:
            if not self._address:
                open_.enter_context(_loopback_only())
            self._connect()
            open_.callback(ray.shutdown)
            for table in self._answer(files, options, done):
                shape = (len(table["truncated"][0]), -1)
                values = np.array(table["values"][0].as_py(), np.float32)
                truncated = np.array(table["truncated"][0].as_py(), np.bool_)
                yield (
                    table["number"][0].as_py(),
                    Probabilities(values.reshape(shape) if len(values) else values, truncated),
                )

    def _connect(self) -> None:
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        handler = signal.getsignal(signal.SIGTERM)
        remedy = "start one with ray start --head, or leave it away"
        try:
            if self._address and _is_listening(self._address):
                # What listens there and gives no answer wants a token; Ray does not say so.
                remedy = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN if it asks for a token"
            with _muted():  # it logs that it logs less
                if self._address:
                    ray.init(self._address, **quiet)
                else:
                    # `local`, or it would join a cluster that happens to run here.
                    ray.init("local", include_dashboard=False, **quiet)
        except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            reason = shorten_message(error)
            raise SettingsError(
                f"--ray-address: no cluster at {self._address or _LOCALHOST} ({reason}); {remedy}"
            ) from None
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray has put its own there, which ends at once

    def _answer(
        self, files: list[Path], options: FileOptions, done: frozenset[int]
    ) -> Iterator[pa.Table]:
        context = DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.execution_options.preserve_order = True
        context.target_max_block_size = 1  # a chunk is a block: none waits for others
        logging.getLogger("ray").setLevel(logging.ERROR)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus = min(_WORKER_CPUS, min(int(machine.get("CPU", 1)) for machine in machines) or 1)
        gpus = sum(int(machine.get("GPU", 0)) for machine in machines)
        workers = gpus or sum(int(machine.get("CPU", 0)) // cpus for machine in machines)
        read = read_datasource(
            _Chunks(files, options, done), override_num_blocks=1, num_cpus=_READER_CPUS
        )
        answered = read.map_batches(
            _Worker,
            batch_size=1,
            batch_format="pyarrow",
            fn_constructor_args=(str(self._run.resolve()), self._backend, cpus),
            concurrency=max(1, workers),
            num_cpus=None if gpus else cpus - _READER_CPUS,
            num_gpus=1 if gpus else None,
        )
        try:
            yield from answered.iter_batches(batch_size=1, batch_format="pyarrow")
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1][:300]
            raise UnfinishedError(
                f"--engine ray: a worker failed ({reason}); mend it and run the same command again"
            ) from None


@contextmanager
def _loopback_only() -> Iterator[None]:
    """A cluster for this machine alone: nobody else can connect to it.

    On Linux Ray would listen on every address, without a password. This is the switch by which it
    takes 127.0.0.1 elsewhere; tests/prediction/test_ray_engine.py looks at the sockets.
    """
    name, before = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    kept = os.environ.get(name)
    os.environ[name] = "0"  # for Ray's other processes
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        os.environ.pop(name)
        if kept is not None:
            os.environ[name] = kept


@contextmanager
def _muted() -> Iterator[None]:
    """Nothing on stderr, not from libraries in C++ either."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _is_listening(address: str) -> bool:
    """Whether it is an address where something listens; Ray itself would try for minutes.

    Raises:  OSError where nothing does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return False  # a name such as `auto`
    socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    return True


class _Chunks(Datasource):  # type: ignore[misc]
    """The texts of the chunks that are due, a row a chunk, read one after the other."""

    def __init__(self, files: list[Path], options: FileOptions, done: frozenset[int]) -> None:
        super().__init__()
        self._files, self._options, self._done = files, options, done

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """One task: only reading tells where a chunk begins."""
        assert parallelism
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(self._read, unknown)]

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown."""
        return None

    def _read(self) -> Iterator[pa.Table]:
        rows = open_input(self._files, self._options)
        for number in itertools.count():
            chunk = rows.read_chunk()
            if not chunk:
                return
            if shards.is_mine(number, self._options.shard) and number not in self._done:
                texts = [item.text for item in chunk if not item.fault]
                column = pa.array([texts], pa.list_(pa.string()))
                yield pa.table({"number": [number], "texts": column})


class _Worker:
    """A classifier in a process of its own."""

    def __init__(self, run: str, backend: BackendName, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._predictor = Predictor.load(run, backend)

    def __call__(self, batch: pa.Table) -> pa.Table:
        found = self._predictor.predict_proba(batch["texts"][0].as_py())
        values = pa.array([found.values.ravel()], pa.list_(pa.float32()))
        truncated = pa.array([found.truncated], pa.list_(pa.bool_()))
        return pa.table({"number": batch["number"], "values": values, "truncated": truncated})
