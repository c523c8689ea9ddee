"""The models of a run at frozen networks: checked before it begins, pinned by digests, and loaded by its workers."""

from itertools import zip_longest

import torch

from dream_ray.config import Config
from dream_ray.config.sections import Initialisation, PinnedModel
from dream_ray.data.store.store import Store
from dream_ray.engine.models.checks import check_accuracy, check_fits_store, check_normalisation
from dream_ray.engine.models.model import Model, read_model
from dream_ray.engine.networks.from_config import matched_networks
from dream_ray.engine.networks.frozen import FrozenNetworks
from dream_ray.engine.run.normalisation import chosen_statistics
from dream_ray.errors import UsageError


def with_models(config: Config, store: Store) -> Config:
    """Returns settings with the digest and the architecture of every model; unchanged unless source.kind is frozen.

    Raises:
        UsageError: If a model does not exist, does not fit store or settings, is too weak, or is another one than the
            settings name.
        RunError: If a model is torn or damaged.
    """
    if config.source.kind != "frozen":
        return config
    if not config.source.models:
        raise UsageError(
            "source.models must have at least one model with source.kind frozen; got none. "
            f"`dream-ray train {store.path} --out MODEL` trains one, and --set source.models=[MODEL] names it"
        )
    mean, std = chosen_statistics(config.data.normalisation, store)
    models = read_pool(config)
    for model in models:
        check_fits_store(model, store)
        check_normalisation(model, mean, std)
        if not config.source.allow_weak_models:
            check_accuracy(model, "set source.allow_weak_models=true")
    found = tuple(PinnedModel(digest=model.digest, network=model.description.network) for model in models)
    changed = {
        "source": config.source.model_copy(update={"found": found}),
        "initialisation": _with_models_of_the_pool(config),
    }
    return config.model_copy(update=changed)


def _with_models_of_the_pool(config: Config) -> Initialisation:
    """Returns the initialisation; if it needs models and names none, with those of the pool."""
    start, pool = config.initialisation, config.source
    if start.models or start.strategy not in ("easy", "herding"):
        return start
    models = pool.models if start.strategy == "easy" else pool.models[:1]
    return start.model_copy(update={"models": models, "allow_weak_models": pool.allow_weak_models})


def read_pool(config: Config) -> list[Model]:
    """Reads the models of a run.

    Raises:
        UsageError: If one does not exist, or is another one than when the run began.
        RunError: If one is torn or damaged.
    """
    digests = [one.digest for one in config.source.found or ()]
    return [read_model(path, digest) for path, digest in zip_longest(config.source.models, digests)]


def load_pool(config: Config, device: torch.device) -> FrozenNetworks:
    """Loads the networks of a run on a device; errors as for `read_pool` and `Model.load`."""
    networks = [model.load(device) for model in read_pool(config)]
    return FrozenNetworks(networks, matched_networks(config)[1], config.inner_steps)
