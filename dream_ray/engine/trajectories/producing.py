"""The loop of a producer: it takes jobs from a conveyor and makes the networks."""

from collections.abc import Callable
from typing import Any, Protocol

from dream_ray.core.normalisation import Normalisation
from dream_ray.data.store import Store
from dream_ray.engine.assembly import build, network_source
from dream_ray.engine.feature_bank import FeatureBank
from dream_ray.engine.network_source import NetworkSource, NetworkState, blank_network, without_momentum
from dream_ray.engine.run import Run
from dream_ray.engine.trajectories.bank import open_bank
from dream_ray.engine.trajectories.conveyor import Job, networks_ahead


class Jobs(Protocol):
    """A conveyor as its producers see it; see `Conveyor`."""

    def next_job(self, producer: int) -> Job | None:
        """Waits for work."""
        ...

    def put(self, producer: int, inner: int, item: Any) -> bool:
        """Puts a network in; returns whether to go on."""
        ...


def trained_networks(run: Run, store: Store) -> NetworkSource:
    """Makes the network source of a run that trains the networks, or reads what its bank has of them."""
    bank = None
    if run.launch.bank is not None:
        bank = open_bank(run.launch.bank, run.launch.bank_bytes, _identity(run))
    normalisation = Normalisation.of(store.mean, store.std, run.device)
    return network_source(run.config, store, normalisation, bank, compiled=run.compiled)


def feature_bank(run: Run) -> FeatureBank | None:
    """Returns where the features of the real images under the networks of a run are kept, if they are."""
    if run.launch.bank is None or run.launch.feature_bytes == 0:
        return None
    selection = run.config.selection
    embedded = selection.model_dump(mode="json", include={"normalise", "precision", "embedding_batch"})
    identity = {"networks": _identity(run), "embedded": embedded}
    return FeatureBank(f"{run.launch.bank}-features", run.launch.feature_bytes, identity)


def _identity(run: Run) -> dict[str, Any]:
    """Returns what the networks of a run depend on, to the bit."""
    config = run.config.model_dump(mode="json")
    settings = {key: config[key] for key in ("seed", "network", "source", "update")}
    settings |= {"first_warmup_epochs": run.config.initialisation.warmup_epochs, "splits": run.config.splits}
    # Where the data lie and who does the work changes no network.
    elsewhere = ("launch", "store")
    return settings | {key: value for key, value in run.environment.items() if key not in elsewhere}


def window_of(run: Run, num_producers: int) -> int:
    """Returns how many networks may be made ahead: a trajectory for every producer, if they have room."""
    config = run.config
    network = blank_network(lambda: build(config, run.open_store()))
    num_bytes: int = sum(tensor.nbytes for tensor in network.state_dict().values())
    return networks_ahead(num_producers, config.inner_steps, num_bytes)


def produce(
    conveyor: Jobs,
    producer: int,
    run: Run,
    *,
    pack: Callable[[NetworkState], Any] = lambda state: state,
) -> None:
    """Makes networks until there is nothing to make any more.

    Args:
        conveyor: Gives the jobs and takes the networks.
        producer: Number of this producer.
        run: The run that they are for.
        pack: Makes what is put in of a network's state.
    """
    config = run.config
    source = trained_networks(run, run.open_store())
    while (job := conveyor.next_job(producer)) is not None:
        for snapshot in source.trajectory(job.outer, job.start, job.state):
            if snapshot.inner < job.first:
                continue
            state = snapshot.state()
            if not config.saves_at(config.step_of(job.outer, snapshot.inner)):
                state = without_momentum(state)  # nobody trains on from there
            if not conveyor.put(producer, snapshot.inner, pack(state)):
                break
