"""A pool: the directory of models that are trained side by side, each by one worker.

Its members are ordinary models of ordinary trainings, in directories of their own. `pool.json` is written last: it has
the digests of the members, in their order.
"""

from dataclasses import dataclass, replace
from typing import Any

from dream_ray import storage
from dream_ray.engine.models.model import is_model, read_model
from dream_ray.engine.models.spec import PoolSpec, TrainSpec
from dream_ray.engine.models.training.directory import CHECKPOINT, begin_training, clean_up, read_progress
from dream_ray.engine.models.training.worker import train
from dream_ray.engine.networks.tensor_file import read_metadata
from dream_ray.engine.run.spec import POOL, member_path
from dream_ray.errors import RunError, UsageError

FORMAT_VERSION = 1
_MOST_SHOWN = 3


@dataclass(frozen=True)
class Member:
    """The training of a member.

    Attributes:
        number: Its place in the pool.
        spec: The training.
        begun: What `begin_training` returned.
    """

    number: int
    spec: TrainSpec
    begun: dict[str, Any]


def begin_pool(spec: PoolSpec) -> list[Member]:
    """Creates the directories of all members, or checks those of an earlier call; runs on a worker node.

    Raises:
        UsageError: As for `begin_training`, or if the directory holds something else or a larger pool.
    """
    file, names = storage.join(spec.out, POOL), {member.out.rpartition("/")[2] for member in spec.members}
    before = len(storage.read_json(file)["digests"]) if storage.exists(file) else 0
    if before > len(spec.members):
        raise UsageError(f"members must be at least those of the pool in {spec.out} ({before}); got {len(names)}")
    if others := [name for name in storage.list_directory(spec.out) if name != POOL and name not in names]:
        raise UsageError(
            f"out must be a new or empty directory, or that of this pool; {spec.out} has files in it, such as "
            f"{others[0]}"
        )
    return [Member(number, one, begin_training(one)) for number, one in enumerate(spec.members)]


def train_member(member: Member, device: str) -> None:
    """Trains a member to its last epoch, in the only process that works on it; an error names the member.

    Args:
        member: The member.
        device: Device that computes, see `resolve_device`.
    """
    try:
        train(replace(member.spec, device=device), member.begun)
    except (UsageError, RunError) as error:
        raise type(error)(f"member {member.number}: {error}") from None


def finish_pool(spec: PoolSpec) -> None:
    """Writes the file of a pool whose members are finished, and deletes what only an unfinished training needs.

    Raises:
        RunError: If a member is torn or damaged.
    """
    digests = [read_model(member.out).digest for member in spec.members]
    storage.write_json(storage.join(spec.out, POOL), {"format_version": FORMAT_VERSION, "digests": digests}, indent=1)
    for member in spec.members:
        clean_up(member.out)


def saved_steps(spec: PoolSpec) -> list[str]:
    """Returns the step of the checkpoint of each member, or "" before the first one, or "finished"."""

    def saved_step(path: str) -> str:
        file = storage.join(path, CHECKPOINT)
        if is_model(path):
            return "finished"
        return read_metadata(file)["step"] if storage.exists(file) else ""

    return [saved_step(member.out) for member in spec.members]


def read_pool_progress(path: str) -> tuple[str, int, int]:
    """Returns a summary of a pool that is trained, which names the members, the steps done, and all steps."""
    members = len(storage.list_directories(path))
    finished, done, longest, shown = 0, 0, 0, []
    for number in range(members):
        of_member = member_path(path, number)
        text, step, total = read_progress(of_member)
        longest = max(longest, total)
        if is_model(of_member):
            finished += 1
        elif total:
            done += step
            shown.append(f"member {number}: {text}")
    if len(shown) > _MOST_SHOWN:
        shown[_MOST_SHOWN:] = [f"{len(shown) - _MOST_SHOWN} more"]
    counted = [f"{finished} of {members} members finished"] if finished else []
    return "; ".join([*counted, *shown]) or "starting", done + finished * longest, members * longest
