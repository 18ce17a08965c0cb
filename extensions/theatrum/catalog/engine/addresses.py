"""An engine by its address: the one function behind which all clusters are.

| address | where the work is done |
|---|---|
| `local` | worker processes on this machine, one a core |
| `threads`, `sync` | in this process, for debugging |
| `tcp://host:8786`, `tls://host:8786` | a Dask scheduler that runs already |
| `gateway:name` | a cluster of Dask Gateway; `gateway:` alone makes a new one |
| `kube:namespace` | a new cluster by the Dask operator of Kubernetes |
| `slurm:queue` | a new cluster of Slurm jobs by dask-jobqueue |
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from theatrum.catalog.engine.errors import BadAddress, NoCluster
from theatrum.catalog.engine.pools import Distributed, Inline, Pool, Threads

KINDS: Final = ("local", "threads", "sync", "tcp", "tls", "gateway", "kube", "slurm")
DEATHS: Final = 2
"""So many workers may die of one item before it is left out, on clusters of ours."""


@dataclass(frozen=True)
class Address:
    """Which kind of cluster, and which of its kind."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        if self.kind in ("tcp", "tls"):
            return f"{self.kind}://{self.name}"
        return f"{self.kind}:{self.name}" if self.name else self.kind


def parse(address: str) -> Address:
    """Read an address; raises BadAddress."""
    word = address.strip()
    kind, separator, name = word.partition("://")
    if separator and kind in ("tcp", "tls"):
        host, colon, port = name.rstrip("/").rpartition(":")
        if not (host and colon and port.isdigit()):
            raise BadAddress(
                f"{address!r} needs a host and a port: {kind}://host:8786."
            )
        return Address(kind, name.rstrip("/"))
    kind, colon, name = word.partition(":")
    if kind in ("local", "threads", "sync") and not colon:
        return Address(kind)
    if kind in ("gateway", "kube", "slurm") and colon:
        if kind != "gateway" and not name:
            raise BadAddress(f"{address!r} needs a name behind the colon.")
        return Address(kind, name)
    raise BadAddress(
        f"{address!r} is no engine: write local, threads, sync, tcp://host:8786, "
        "tls://host:8786, gateway:name, kube:namespace or slurm:queue."
    )


@dataclass(frozen=True)
class Options:
    """What a new cluster is like, and how one that runs is reached.

    Attributes
    ----------
    workers
        Processes or threads; 0 for as many as there are cores. More finish earlier
        and take more memory.
    memory
        Of one worker, such as "4GB"; "" leaves it to Dask ("auto").
    ca_file, cert_file, key_file
        PEM files, for `tls://`.
    resources
        That each task needs of its worker, such as {"GPU": 1}.
    gateway
        Address of the Gateway's server; "" takes Dask's configuration.
    patience_s
        So long a cluster that does not answer is asked again before a batch fails. A
        larger value lets a scheduler start late, a smaller one tells sooner.
    more
        Handed on to the cluster's own class: a Slurm account, a container image.
    """

    workers: int = 0
    memory: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    resources: dict[str, float] = field(default_factory=dict)
    gateway: str = ""
    gateway_auth: str = "jupyterhub"
    patience_s: float = 30.0
    walltime: str = "04:00:00"
    # Any: whatever that class takes
    more: dict[str, Any] = field(default_factory=dict)


class Engine:
    """A place to work, by its address; opened when it is first used.

        with Engine("tcp://10.0.0.5:8786") as engine:
            query.map(node, engine=engine).wait()

    Thread-safe once opened. `Engine(client)` takes a Dask `Client` that is yours.
    """

    def __init__(self, address: str | Any = "local", **options: Any) -> None:
        """`address` is text or a Dask client; options are those of `Options`."""
        self.options = Options(**options)
        self._pool: Pool | None = None
        if isinstance(address, str):
            self.address = parse(address)
        else:
            self.address = Address("tcp", address.scheduler.address.partition("://")[2])
            self._pool = Distributed(address, (), self.options.resources or None)

    @property
    def pool(self) -> Pool:
        """Where tasks run; raises NoCluster where nothing answers."""
        if self._pool is None:
            self._pool = open_pool(self.address, self.options)
        return self._pool

    @property
    def is_open(self) -> bool:
        """Whether it was reached already."""
        return self._pool is not None

    @property
    def client(self) -> Any:
        """The Dask client; None of the kinds without one."""
        return getattr(self.pool, "client", None)

    @property
    def dashboard(self) -> str:
        """Address of Dask's own page; "" where there is none."""
        return str(getattr(self.client, "dashboard_link", "") or "")

    def scale(self, workers: int) -> None:
        """Ask a cluster that this engine made for another number of workers."""
        cluster = getattr(self.client, "cluster", None)
        if cluster is None:
            raise NoCluster(f"{self.address} is not ours to scale.")
        cluster.scale(workers)

    def close(self) -> None:
        """End a cluster that was made here; leave one that ran already."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Engine({str(self.address)!r})"


_current: ContextVar[Engine | None] = ContextVar("engine", default=None)


@contextmanager
def using(engine: Engine | str) -> Iterator[Engine]:
    """Let everything within take this engine where it names none."""
    made = Engine(engine) if isinstance(engine, str) else engine
    token = _current.set(made)
    try:
        yield made
    finally:
        _current.reset(token)
        if made is not engine:
            made.close()


def chosen(engine: Engine | str | None) -> tuple[Engine, bool]:
    """Return the engine to use, and whether who asked has to close it."""
    if isinstance(engine, Engine):
        return engine, False
    current = _current.get()
    if engine is None and current is not None:
        return current, False
    wanted = engine or os.environ.get("THEATRUM_ENGINE") or "local"
    return Engine(wanted), True


def open_pool(address: Address, options: Options) -> Pool:
    """Open what an address names: the one function behind which all clusters are."""
    workers = options.workers or os.cpu_count() or 1
    if address.kind == "sync":
        return Inline()
    if address.kind == "threads":
        return Threads(workers)
    from theatrum.catalog.engine import clusters

    make = {
        "local": clusters.local,
        "tcp": clusters.scheduler,
        "tls": clusters.scheduler,
        "gateway": clusters.gateway,
        "kube": clusters.kubernetes,
        "slurm": clusters.slurm,
    }[address.kind]
    client, own = make(address, options, workers)
    return Distributed(client, own, options.resources or None)
