"""Dask clusters of every kind: each function gives a client, and what to close.

Each is a thin adapter to the library that knows the kind. What that library is not
installed for is told with its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from theatrum.catalog.engine.errors import NoCluster

if TYPE_CHECKING:
    from theatrum.catalog.engine.addresses import Address, Options

# A client of Dask, and what is closed after it; neither has types.
Opened = tuple[Any, tuple[Any, ...]]
TIMEOUT_S = 10
"""Of one try to reach a scheduler."""


def local(address: Address, options: Options, workers: int) -> Opened:
    """Worker processes on this machine, listening on the loopback only."""
    import dask
    from distributed import Client, LocalCluster

    from theatrum.catalog.engine.addresses import DEATHS

    del address
    with dask.config.set({"distributed.scheduler.allowed-failures": DEATHS - 1}):
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=options.memory or "auto",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            resources=options.resources or None,
            **options.more,
        )
    return Client(cluster), (cluster,)


def scheduler(address: Address, options: Options, workers: int) -> Opened:
    """A scheduler that runs already; with TLS where the address says so."""
    from distributed import Client
    from distributed.security import Security

    del workers
    security = None
    if address.kind == "tls":
        security = Security(
            tls_ca_file=options.ca_file or None,
            tls_client_cert=options.cert_file or None,
            tls_client_key=options.key_file or None,
            require_encryption=True,
        )
    try:
        patient = max(1.0, min(TIMEOUT_S, options.patience_s))
        client = Client(str(address), security=security, timeout=patient)
    except (OSError, TimeoutError, ValueError) as error:
        raise NoCluster(
            f"no Dask scheduler answers at {address}: is it running, and may this "
            f"machine reach it? ({error})"
        ) from error
    return client, ()


def gateway(address: Address, options: Options, workers: int) -> Opened:
    """A cluster of Dask Gateway by its name, or a new one.

    A cluster that ran already goes on when the engine is closed.
    """
    from dask_gateway import Gateway
    from dask_gateway.client import GatewayClusterError, GatewayServerError

    place = {"address": options.gateway} if options.gateway else {}
    server = Gateway(**place, auth=options.gateway_auth)
    try:
        if address.name:
            cluster = server.connect(address.name, shutdown_on_close=False)
        else:
            cluster = server.new_cluster(shutdown_on_close=True, **options.more)
            cluster.scale(workers)
    except (OSError, ValueError, GatewayClusterError, GatewayServerError) as error:
        server.close()
        raise NoCluster(
            f"Dask Gateway gives no cluster {address.name or 'at all'}: {error}"
        ) from error
    return cluster.get_client(), (cluster, server)


def kubernetes(address: Address, options: Options, workers: int) -> Opened:
    """A new cluster in a namespace, by the Dask operator."""
    from distributed import Client

    try:
        from dask_kubernetes.operator import KubeCluster
    except ImportError as error:
        raise NoCluster(
            "Kubernetes clusters need the package dask-kubernetes: install it where "
            "the notebook runs.",
            passing=False,
        ) from error
    limits = {"limits": {"memory": options.memory}} if options.memory else {}
    cluster = KubeCluster(
        namespace=address.name,
        n_workers=workers,
        **({"resources": limits} if limits else {}),
        **options.more,
    )
    return Client(cluster), (cluster,)


def slurm(address: Address, options: Options, workers: int) -> Opened:
    """A new cluster of Slurm jobs in a queue (a partition), one worker each."""
    from distributed import Client

    cluster = slurm_cluster(address, options)
    cluster.scale(workers)
    return Client(cluster), (cluster,)


def slurm_cluster(address: Address, options: Options) -> Any:
    """Return the cluster without a job yet; its `job_script()` is what Slurm gets."""
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError as error:
        raise NoCluster(
            "Slurm clusters need the package dask-jobqueue: install it where the "
            "notebook runs.",
            passing=False,
        ) from error
    more = {"cores": 1, "processes": 1, **options.more}
    return SLURMCluster(
        queue=address.name,
        memory=options.memory or "4GB",
        walltime=options.walltime,
        **more,
    )
