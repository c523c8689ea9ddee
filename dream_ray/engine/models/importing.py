"""Weights from elsewhere as a model: mapped to the classes of a store by name, measured, and written."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from dream_ray import storage
from dream_ray.config.normalisation import ChannelStatistics
from dream_ray.config.sections import Network
from dream_ray.core.images.normalisation import Normalisation
from dream_ray.data.class_lists import possible_names
from dream_ray.data.store.store import Store
from dream_ray.engine.models.measuring import measure_held_out
from dream_ray.engine.models.model import Description, write_model
from dream_ray.engine.models.pretrained import FIND, classifier_tensors, model_weights, read_state_dict
from dream_ray.engine.models.spec import ImportSpec, channels_rule
from dream_ray.engine.networks.from_config import build_named
from dream_ray.engine.run.environment import fixed_arithmetic, library_versions, resolve_device
from dream_ray.engine.run.normalisation import chosen_statistics
from dream_ray.engine.run.process_memory import memory_errors
from dream_ray.errors import UsageError, check_rules
from dream_ray.nets import Classifier
from dream_ray.nets.user_networks import source_digest


@memory_errors()
def import_model(spec: ImportSpec) -> None:
    """Writes weights from elsewhere as a model of a store; runs on a worker node.

    Args:
        spec: The import; its directory is new or empty.

    Raises:
        UsageError: If the weights are not on this machine, or do not fit network, classes or images.
    """
    device, names, chosen = resolve_device(spec.device), spec.classes, spec.normalisation
    if found := storage.list_directory(spec.out):
        raise UsageError(f"out must be a new or empty directory; {spec.out} has files in it, such as {found[0]}")
    network, file = spec.network, spec.weights
    if network is None:
        pretrained = FIND[spec.library](spec.weights.partition(":")[2]) if spec.library else model_weights(spec.weights)
        network, file = pretrained.network, pretrained.file
        names, chosen = names or pretrained.class_names, chosen or pretrained.normalisation
    assert network is not None and names is not None and chosen is not None
    with (
        fixed_arithmetic(spec.threads),
        ThreadPoolExecutor(spec.threads, thread_name_prefix="decode") as decoders,
    ):
        store = Store.open(spec.store, decoders)
        check_rules(channels_rule(chosen, store))
        classifier = load_for_store(read_state_dict(file), network, store, names, f"weights {spec.weights}")
        mean, std = chosen_statistics(chosen, store)
        scores = measure_held_out(classifier.to(device), store, Normalisation.of(mean, std, device))
        description = Description(
            network=network,
            network_source=source_digest(network.name),
            class_names=store.manifest.class_names,
            shape_CHW=store.shape_CHW,
            normalisation=ChannelStatistics(mean=mean, std=std),
            accuracy=scores,
            origin={
                "kind": "imported",
                "weights": spec.weights.rpartition("/")[2],
                "weights_sha256": storage.sha256(file),
                "outputs": list(names),
                "store_checksum": store.manifest.checksum,
                "versions": library_versions(),
            },
        )
        write_model(spec.out, classifier, description)


def load_for_store(
    tensors: dict[str, Tensor], network: Network, store: Store, names: Sequence[str], what: str
) -> Classifier:
    """Builds a network with given weights, and its outputs in the order of the classes of a store.

    Args:
        tensors: State dict; its classification layer has an output for each of `names`.
        network: Architecture.
        store: The store; it may have fewer classes.
        names: Names of the outputs, in their order.
        what: Name of the weights, for the error.

    Raises:
        UsageError: If the tensors do not fit the network, or the names the tensors or the store.
    """
    classifier = build_named(network, store)
    named = classifier_tensors(tensors, classifier, what)
    outputs = len(named["head.weight"])
    if outputs != len(names):
        raise UsageError(
            f"classes must name each of the {outputs} outputs of {what}; got {len(names)} names. Give --classes FILE "
            "with one name per line, in the order of the outputs"
        )
    rows = output_rows(names, store.manifest.class_names, what)
    named |= {name: named[name][rows] for name in ("head.weight", "head.bias")}
    for name, own in classifier.state_dict().items():
        if named[name].shape != own.shape:
            raise UsageError(
                f"{what} must fit the architecture; {name} must have the shape {tuple(own.shape)}, and has "
                f"{tuple(named[name].shape)}. Give the --net and --net-option that they belong to"
            )
    classifier.load_state_dict(named)
    return classifier


def output_rows(outputs: Sequence[str], classes: Sequence[str], what: str) -> list[int]:
    """Returns the output of each class of a store, by name.

    Args:
        outputs: Names of the outputs, in their order; a name may be followed by its meaning, see `possible_names`.
        classes: Names of the classes.
        what: Name of the weights, for the error.

    Raises:
        UsageError: If a class has no output, or several.
    """
    wanted: dict[str, list[int]] = {name: [] for name in classes}
    for row, output in enumerate(outputs):
        if (name := next((name for name in possible_names(output) if name in wanted), None)) is not None:
            wanted[name].append(row)
    remedy = "Give --classes FILE with the store's names, one per line, in the order of the outputs"
    if missing := [name for name, rows in wanted.items() if not rows]:
        raise UsageError(
            f"{what} must have an output for each class of the store; {', '.join(map(repr, missing[:5]))}"
            f"{' ...' if len(missing) > 5 else ''} ({len(missing)} of {len(classes)}) are not among its outputs, such "
            f"as {', '.join(map(repr, outputs[:3]))}. {remedy}"
        )
    if repeated := [name for name, rows in wanted.items() if len(rows) > 1]:
        raise UsageError(f"{what} must have one output for each class; {repeated[0]!r} names several. {remedy}")
    return [rows[0] for rows in wanted.values()]
