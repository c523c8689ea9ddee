"""A model: the directory of a network that is not trained any further, which describes itself.

`model.safetensors` holds the tensors. `model.json` is written last and holds the rest: architecture, classes, input,
accuracies, origin, the digest of the weights, and a digest over all of that. A directory that was interrupted, changed
or put together from two models is refused. Costs are in another file, so that equal bits have equal digests.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from dream_ray import storage
from dream_ray.config.normalisation import ChannelStatistics
from dream_ray.config.sections import Network
from dream_ray.engine.models.scores import Score
from dream_ray.engine.run.spec import MODEL, POOL, member_path
from dream_ray.errors import RunError, UsageError

if TYPE_CHECKING:  # PyTorch takes seconds to import
    import torch

    from dream_ray.core.images.normalisation import Normalisation
    from dream_ray.nets import Classifier

FORMAT_VERSION = 1
WEIGHTS, BEGUN = "model.safetensors", "training.json"


@dataclass(frozen=True, kw_only=True)
class Description:
    """The content of model.json, besides the digests.

    Attributes:
        network: Architecture and its options.
        network_source: Digest of the module of a user's network; None: the network is not a user's.
        class_names: Names of the classes, in the order of the logits.
        shape_CHW: Shape of an image.
        normalisation: Statistics that normalise the inputs, for pixels in [0, 1].
        accuracy: Results by split of the store, without the training split; splits without images are left out.
        origin: Store and recipe that trained it and what its bits depend on, or where its weights come from.
    """

    network: Network
    network_source: str | None
    class_names: tuple[str, ...]
    shape_CHW: tuple[int, int, int]
    normalisation: ChannelStatistics
    accuracy: dict[str, Score]
    origin: dict[str, Any]


@dataclass(frozen=True)
class Model:
    """A model whose files belong together.

    Attributes:
        path: Its directory.
        description: What model.json says.
        digest: SHA-256 over the description and the weights.
    """

    path: str
    description: Description
    digest: str

    def load(self, device: "torch.device") -> "Classifier":
        """Returns the network on a device, in evaluation mode; its parameters need no gradients.

        Raises:
            UsageError: If a user's network has changed, or cannot be built here.
            RunError: If the weights are damaged.
        """
        from dream_ray.engine.networks.tensor_file import read_tensors
        from dream_ray.nets import build_network
        from dream_ray.nets.user_networks import source_digest

        own = self.description
        if (found := source_digest(own.network.name)) != own.network_source:
            raise UsageError(
                f"network {own.network.name!r} must have the source that model {self.path} was trained with (digest "
                f"{own.network_source}); got {found}"
            )
        network = build_network(
            own.network.name,
            num_classes=len(own.class_names),
            shape_CHW=own.shape_CHW,
            options=own.network.options,
        )
        tensors, _ = read_tensors(storage.join(self.path, WEIGHTS))
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise RunError(f"model {self.path} does not fit its architecture: {error}") from None
        return network.to(device).eval().requires_grad_(requires_grad=False)

    def normalise(self, device: "torch.device") -> "Normalisation":
        """Returns the map from images in [0, 1] to inputs of the network, on a device."""
        from dream_ray.core.images.normalisation import Normalisation

        return Normalisation.of(self.description.normalisation.mean, self.description.normalisation.std, device)


def write_model(path: str, network: "Classifier", description: Description) -> Model:
    """Writes a model; its description, which completes it, comes last."""
    from dream_ray.engine.networks.tensor_file import write_tensors

    weights = storage.join(path, WEIGHTS)
    write_tensors(weights, network.state_dict(), {})
    document = _document(description, storage.sha256(weights))
    storage.write_json(storage.join(path, MODEL), document, indent=1)
    return Model(path, description, document["digest"])


def is_model(path: str) -> bool:
    """Returns whether a directory holds a finished model."""
    return storage.exists(storage.join(path, MODEL))


def is_training(path: str) -> bool:
    """Returns whether a directory was begun by the training of a model or a pool, finished or not."""
    return any(storage.exists(storage.join(where, BEGUN)) for where in (path, member_path(path, 0)))


def read_model(path: str, digest: str | None = None) -> Model:
    """Reads a model and compares its files with their digests; the network is built by `Model.load`.

    Args:
        path: Its directory.
        digest: Digest of the model that a run began with; None: any model will do.

    Raises:
        UsageError: If there is no finished model, one of another format version, or another one.
        RunError: If a file is missing, damaged, or belongs to another model.
    """
    if storage.exists(storage.join(path, POOL)):
        raise UsageError(f"model {path} must be one model; it is a pool, of models such as {member_path(path, 0)}")
    if not is_model(path):
        raise UsageError(
            f"model {path} does not exist or is not finished: it contains no {MODEL}; the `dream-ray train` "
            "command that began it finishes it"
        )
    file = storage.join(path, MODEL)
    found = storage.read_json(file)
    version = found.get("format_version") if isinstance(found, dict) else None
    if version != FORMAT_VERSION:
        raise UsageError(f"{file} must have format version {FORMAT_VERSION}, which this dream_ray reads; got {version}")
    fields = {key: value for key, value in found.items() if key not in ("format_version", "weights_sha256", "digest")}
    try:
        description = TypeAdapter(Description).validate_python(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise RunError(f"{file} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    weights = storage.sha256(storage.join(path, WEIGHTS))
    document = _document(description, weights)
    if found.get("weights_sha256") != weights:
        raise RunError(
            f"model {path} is torn: {WEIGHTS} has the digest {weights[:12]}, and {MODEL} names "
            f"{str(found.get('weights_sha256'))[:12]}. Copy the directory again as a whole, or train the model again"
        )
    if found.get("digest") != document["digest"]:
        raise RunError(
            f"model {path} is damaged: {MODEL} was changed after it was written. Copy the directory again as a "
            "whole, or train the model again"
        )
    if digest is not None and document["digest"] != digest:
        raise UsageError(
            f"model {path} must be the one that the run began with (digest {digest[:12]}); its digest is "
            f"{document['digest'][:12]}. Put it back, or begin a new run"
        )
    return Model(path, description, document["digest"])


def _document(description: Description, weights_sha256: str) -> dict[str, Any]:
    """Returns model.json as plain values; its digest covers all of them."""
    values = asdict(description) | {
        "network": description.network.model_dump(mode="json"),
        "normalisation": description.normalisation.model_dump(mode="json"),
    }
    plain = {"format_version": FORMAT_VERSION, **values, "weights_sha256": weights_sha256}
    text = json.dumps(plain, sort_keys=True)
    return {**plain, "digest": hashlib.sha256(text.encode()).hexdigest()}
