"""The cost of each class, and the classes of each worker."""

from collections.abc import Sequence

from dream_ray.config import Config
from dream_ray.core.images.decode_schedule import decoded_count
from dream_ray.core.placement import Labels, place_classes
from dream_ray.data.store.store import Store


def placement(config: Config, counts: Sequence[int], workers: int) -> tuple[Labels, ...]:
    """Returns the classes of each worker; in trajectory matching (MTT), where workers share the segments, all of them.

    Args:
        config: Settings.
        counts: Real images of each class, by label.
        workers: Number of workers.
    """
    if config.matching.objective == "trajectory":
        return (tuple(range(len(counts))),) * workers
    return place_classes(class_costs(config, counts), workers)


def class_costs(config: Config, counts: Sequence[int]) -> list[int]:
    """Returns the forward passes of images in the selections and steps of a run, by label of the class.

    A backward pass counts as two forward passes. In a step, a real image counts three, and a synthetic image six
    because of its second-order gradient.
    """
    decoded = decoded_count(config.ipc, config.factor, config.decode, config.batch_synthetic_max)
    synthetic = min(decoded, config.batch_synthetic_max)
    selections = config.outer_steps * num_selections(config)
    return [
        config.total_steps * (3 * min(count, config.real_batch) + 6 * synthetic) + selections * count
        for count in counts
    ]


def num_selections(config: Config) -> int:
    """Returns the number of selections in an outer step."""
    return sum(map(config.selects_at, range(config.inner_steps)))


def class_counts(config: Config, store: Store) -> list[int]:
    """Returns the number of images of each class that are distilled, by label."""
    return [sum(store.count(split, label) for split in config.splits) for label in range(store.num_classes)]


def training_count(config: Config) -> int:
    """Returns the number of training images that the stored images of a class decode into."""
    return decoded_count(config.ipc, config.factor, config.evaluation_decode, config.batch_synthetic_max)
