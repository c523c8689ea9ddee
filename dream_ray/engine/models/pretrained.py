"""Weights from elsewhere: those of torchvision and timm that are on this machine, and files. Nothing is downloaded."""

import io
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dream_ray import storage
from dream_ray.config.normalisation import ChannelStatistics
from dream_ray.config.sections import Network
from dream_ray.engine.models.model import WEIGHTS, read_model
from dream_ray.errors import UsageError
from dream_ray.nets import Classifier
from dream_ray.nets.classifier import foreign_code

_WRAPPED = ("state_dict", "model")
"""Keys of the state dict in the files of training programs."""
_PARALLEL = "module."
"""Prefix of the names in the state dict of a data-parallel module."""


@dataclass(frozen=True)
class Pretrained:
    """Weights that name their network, outputs and normalisation.

    Attributes:
        network: The network.
        file: Their file.
        class_names: Names of the outputs, in their order.
        normalisation: Normalisation of the inputs.
    """

    network: Network
    file: str
    class_names: tuple[str, ...]
    normalisation: ChannelStatistics


def torchvision_weights(name: str) -> Pretrained:
    """Finds weights of torchvision in its cache.

    Args:
        name: A network, such as resnet18, or weights, such as resnet18.IMAGENET1K_V1.

    Raises:
        UsageError: If torchvision has no such weights, they are not on this machine, or several are.
    """
    import torchvision.models

    model, _, tag = name.partition(".")
    valid = torchvision.models.list_models(module=torchvision.models)
    if model not in valid:
        raise UsageError(f"weights torchvision:NAME must name one of {', '.join(valid)}; got {name!r}")
    members = {member.name: member for member in torchvision.models.get_model_weights(model)}
    if tag and tag not in members:
        raise UsageError(f"weights of torchvision:{model} must be one of {', '.join(members)}; got {tag!r}")
    directory = storage.join(torch.hub.get_dir(), "checkpoints")
    files = {key: storage.join(directory, member.url.rpartition("/")[2]) for key, member in members.items()}
    found = [key for key in ([tag] if tag else members) if storage.exists(files[key])]
    if not found:
        wanted = tag or next(iter(members))
        raise UsageError(
            f"weights torchvision:{name} must be on this machine, and nothing is downloaded; there is no "
            f"{files[wanted]}. Download it from {members[wanted].url}"
        )
    if len(found) > 1:
        ways = " or ".join(f"torchvision:{model}.{key}" for key in found)
        raise UsageError(f"several weights of torchvision:{model} are on this machine; name one: {ways}")
    chosen = members[found[0]]
    transforms = chosen.transforms()
    statistics = ChannelStatistics(mean=tuple(transforms.mean), std=tuple(transforms.std))
    return Pretrained(
        Network(name=f"torchvision:{model}"), files[found[0]], tuple(chosen.meta["categories"]), statistics
    )


def timm_weights(name: str) -> Pretrained:
    """Finds weights of timm in the cache of Hugging Face; raises UsageError as `torchvision_weights` does."""
    from dream_ray.nets.timm_nets import timm_module

    timm = timm_module()
    from huggingface_hub import try_to_load_from_cache

    config = timm.models.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise UsageError(
            "weights timm:NAME must be one of timm.list_models(pretrained=True), such as resnet18.a1_in1k; got "
            f"{name!r}"
        )
    cached = (try_to_load_from_cache(config.hf_hub_id, file) for file in ("model.safetensors", "pytorch_model.bin"))
    file = next((path for path in cached if isinstance(path, str)), None)
    if file is None:
        raise UsageError(
            f"weights timm:{name} must be on this machine, and nothing is downloaded; the cache of Hugging Face has no "
            f"model.safetensors of {config.hf_hub_id}. Download it with `hf download {config.hf_hub_id}`"
        )
    names: tuple[str, ...] = ()
    if config.num_classes == 1000:
        names = tuple(timm.data.ImageNetInfo().label_names())
    statistics = ChannelStatistics(mean=tuple(config.mean), std=tuple(config.std))
    return Pretrained(Network(name=f"timm:{name}"), file, names, statistics)


def model_weights(path: str) -> Pretrained:
    """Returns the weights of a model; raises RunError if it is torn or damaged."""
    own = read_model(path).description
    return Pretrained(own.network, storage.join(path, WEIGHTS), own.class_names, own.normalisation)


FIND: dict[str, Callable[[str], Pretrained]] = {"torchvision": torchvision_weights, "timm": timm_weights}
"""Finds weights by their name in a library of `LIBRARIES`."""


def read_state_dict(path: str) -> dict[str, Tensor]:
    """Reads a state dict, without unpickling objects.

    Args:
        path: A safetensors file, or a file of `torch.save`: a state dict, or a dict that holds it as "state_dict" or
            "model".

    Raises:
        UsageError: If it does not exist or is none.
    """
    if not storage.exists(path) or storage.is_directory(path):
        raise UsageError(f"weights must be torchvision:NAME, timm:NAME, a model or an existing file; got {path!r}")
    try:
        with foreign_code(f"reading the weights {path}"):
            found = _read(path)
    except UsageError as error:  # torch adds a page of advice
        raise UsageError(f"{str(error).splitlines()[0]} Give a state dict of tensors") from None
    for key in _WRAPPED:
        found = found[key] if isinstance(found, dict) and isinstance(found.get(key), dict) else found
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise UsageError(f"weights {path} must hold a state dict, names with tensors; got {type(found).__name__}")
    if all(name.startswith(_PARALLEL) for name in found):
        found = {name.removeprefix(_PARALLEL): tensor for name, tensor in found.items()}
    return found


def _read(path: str) -> object:
    if path.endswith(".safetensors"):
        from safetensors.torch import load

        return load(storage.read_bytes(path))
    with storage.open_raw(path) as file:
        # Reads tensors and plain containers only.
        return torch.load(io.BufferedReader(file), map_location="cpu", weights_only=True)  # noqa: TID251


def classifier_tensors(tensors: dict[str, Tensor], network: Classifier, what: str) -> dict[str, Tensor]:
    """Returns a state dict under the names of a `Classifier`.

    Args:
        tensors: State dict of a `Classifier`, or of the network before it was split.
        network: The network, with any number of outputs.
        what: Name of the tensors, for the error.

    Raises:
        UsageError: If the names are not those of the network.
    """
    own = network.state_dict()
    if {name.partition(".")[0] for name in tensors} <= {"trunk", "head"}:
        named = dict(tensors)
    else:
        trunk = {name for name in tensors if f"trunk.{name}" in own}
        named = {f"trunk.{name}": tensors[name] for name in trunk}
        # The layer that is not in the trunk is the classification layer, whatever its name is.
        named |= {f"head.{name.rpartition('.')[2]}": tensors[name] for name in tensors if name not in trunk}
        if len(named) != len(tensors):
            named = dict(tensors)
    for name, value in own.items():
        if name.endswith(".num_batches_tracked"):  # files of old versions of PyTorch lack it
            named.setdefault(name, value)
    missing, extra = sorted(own.keys() - named.keys()), sorted(named.keys() - own.keys())
    if missing or extra:
        parts = [
            f"{word} {', '.join(found[:3])}{' ...' if len(found) > 3 else ''}"
            for word, found in (("they lack", missing), ("only they have", extra))
            if found
        ]
        raise UsageError(f"{what} must fit the architecture; {'; '.join(parts)}: give the --net that they belong to")
    return named
