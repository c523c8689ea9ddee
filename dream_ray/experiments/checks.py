"""Whether store, networks and models fit an experiment; all are checked before anything starts."""

from dream_ray.config import Config
from dream_ray.config.sections import REAL_STRATEGIES, Network
from dream_ray.data.store.store import Store
from dream_ray.engine.models.ranking import check_models
from dream_ray.engine.run.spec import with_model_paths
from dream_ray.errors import UsageError, check_rules
from dream_ray.experiments.file import Experiment
from dream_ray.nets import build_network


def check_set(experiment: Experiment, store: Store) -> None:
    """Raises UsageError if a store does not hold the image set of a file."""
    wanted, split = experiment.set, experiment.evaluation.split
    splits = experiment.config_of(next(iter(experiment.arms)), 0).splits
    found = {
        "classes": store.num_classes,
        "shape": store.shape_CHW,
        "train": sum(store.count(one, label) for one in splits for label in range(store.num_classes)),
        "test": sum(store.count(split, label) for label in range(store.num_classes)),
    }
    for name, value in found.items():
        if getattr(wanted, name) != value:
            of = f" ({' and '.join(splits)})" if name == "train" else ""
            raise UsageError(
                f"store must hold {wanted.name} with set.{name} {getattr(wanted, name)}; got {value}{of}. Use a store "
                "of that set, or correct `set` in the file"
            )


def check_networks(experiment: Experiment, store: Store) -> None:
    """Raises UsageError if a network of the file is unknown, or its options or the images do not fit it."""
    configs = {arm: experiment.config_of(arm, 0) for arm in experiment.arms}
    checked: list[Network] = []
    for arm, config in configs.items():
        for name, network in {"network": config.network, **experiment.networks(config)}.items():
            if network in checked:
                continue
            try:
                build_network(
                    network.name, num_classes=store.num_classes, shape_CHW=store.shape_CHW, options=network.options
                )
            except UsageError as error:
                raise UsageError(f"arms.{arm}: network {name}: {error}") from None
            checked.append(network)


def with_checked_models(arm: str, config: Config, store: Store) -> tuple[Config, list[str]]:
    """Returns the settings of an arm with its models, see `check_models`, and their paths for every process."""
    start = config.initialisation
    try:
        check_rules(
            (
                config.is_selection and start.strategy not in REAL_STRATEGIES,
                f"initialisation.strategy must be one of {', '.join(REAL_STRATEGIES)} with steps 0; got "
                f"{start.strategy}",
            ),
            (
                config.is_selection and start.strategy != "random" and not start.models,
                "initialisation.models must name a model in a set of real images of strategy "
                f"{start.strategy}; got none",
            ),
        )
        return check_models(with_model_paths(config), store)
    except UsageError as error:
        raise UsageError(f"arms.{arm}: {error}") from None
