"""Settings for a store, a time budget and measured steps: rules of published settings, as pure functions.

Published settings follow the image set. The rules here read them as functions of the side of the images, of the images
per class and of their total, so that they also answer for sets that nobody published.
"""

import bisect
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dream_ray.config import Config, parse_config, put
from dream_ray.config.frameworks import Scale, Settings
from dream_ray.config.frameworks.origins import scaled_rate
from dream_ray.config.sections import Evaluation
from dream_ray.engine.planning.forecast import Forecast
from dream_ray.errors import UsageError

USUAL_IPC = 10
_MOST_OUTER_STEPS, _MOST_INNER_STEPS, _FEWEST_INNER_STEPS = 2000, 100, 20
# The warm-up of a network takes at most this fraction of its inner steps.
_WARM_UP_SHARE = 0.2
# Measured runs took 2 to 7 % longer than predicted (docs/explanation/scaling.md); the rest is for the start and end.
_USED_SHARE = 0.9
_CHECKPOINT_S = 60.0


@dataclass(frozen=True)
class StoreFacts:
    """What the settings depend on.

    Attributes:
        side: Side of the images in pixels.
        channels: 1 or 3.
        counts: Images by split and label, as in a manifest.
        class_names: By label.
    """

    side: int
    channels: int
    counts: Mapping[str, Sequence[int]]
    class_names: Sequence[str]

    @property
    def distils_validation(self) -> bool:
        """Whether validation images are distilled too: without test images they are needed for the evaluation."""
        return any(self.counts["test"]) or not any(self.counts["validation"])

    @property
    def distilled(self) -> list[int]:
        """Images of each class that are distilled, by label."""
        splits = ("train", "validation") if self.distils_validation else ("train",)
        return [sum(of_label) for of_label in zip(*(self.counts[split] for split in splits), strict=True)]


@dataclass(frozen=True)
class Choice:
    """A suggested value.

    Attributes:
        path: The setting.
        value: Its value.
        why: The reason, in a line.
    """

    path: str
    value: Any
    why: str


def suggest_values(facts: StoreFacts, given: Mapping[str, Any], *, on_gpu: bool) -> list[Choice]:
    """Suggests the settings that need no measurement.

    Args:
        facts: The store.
        given: Settings of the user, by path. They are taken as they are, and others follow them.
        on_gpu: Whether the workers have a GPU.

    Returns:
        The choices; the settings of the user come last.
    """
    counts, side = facts.distilled, facts.side
    typical, total = int(statistics.median(counts)), sum(counts)
    factor = given.get("factor", _factor(side, typical))
    ipc = given.get("ipc", max(1, min(USUAL_IPC, typical // factor**2)))
    choices = [
        Choice("ipc", ipc, _why_ipc(facts, typical, ipc * factor**2)),
        Choice("factor", factor, f"tiles of {math.ceil(side / factor)} px; published: 2 at 28 to 64 px, 3 at 224 px"),
        Choice("network.options.depth", _depth(side), f"blocks halve {side} px to about 4 px; published: 3 at 32 px"),
        Choice("network.options.width", 128, "as published")
        if on_gpu
        else Choice("network.options.width", 32, "on a CPU, as in the committed measurements; published: 128"),
        *_matching(facts, Scale(ipc, factor)),
        _clusters(facts),
        *_update(total),
        *_whole_set(total, len(counts) * ipc * factor**2),
    ]
    if not facts.distils_validation:
        why = "the store has no test split, so the validation split stays unseen for the evaluation"
        choices.append(Choice(path="data.include_validation", value=False, why=why))
    as_given = [Choice(path, value, "as given") for path, value in given.items()]
    return [one for one in choices if one.path not in given] + as_given


def _why_ipc(facts: StoreFacts, typical: int, tiles: int) -> str:
    why = f"at most {USUAL_IPC}, and a class of median size ({typical} images) fills its mosaics"
    fewest = min(facts.distilled)
    if fewest >= tiles:
        return why
    return f"{why}; with the {fewest} images of {facts.class_names[facts.distilled.index(fewest)]!r}, some tiles repeat"


def _factor(side: int, typical: int) -> int:
    factor = 1 if side < 28 else 2 if side <= 128 else 3
    return factor if typical >= factor**2 else 1


def _depth(side: int) -> int:
    """Returns the blocks of a ConvNet: 2 at 8 px, 3 at 32 px, 4 at 64 px, at most 6."""
    deepest = int(math.log2(side))
    return max(1, min(deepest, max(2, math.ceil(math.log2(side)) - 2), 6))


def _matching(facts: StoreFacts, scale: Scale) -> list[Choice]:
    """Returns distance and pixel rate: those of CIFAR-10, and for grey images those of MNIST."""
    # No published set has smaller images, and the rule would not move their pixels.
    side = max(facts.side, 28)
    is_grey = facts.channels == 1
    rate = scaled_rate(1e-4, side=side, base_side=28) if is_grey else scaled_rate(5e-3, side=side, base_side=32)
    distance = Choice("matching.distance", "l1", "as published for grey images")
    return [*([distance] if is_grey else []), Choice("pixels.lr", rate.at(scale), f"published rule {rate.rule}")]


def _clusters(facts: StoreFacts) -> Choice:
    counts = facts.distilled
    fewest = min(counts)
    number = min(128, max(16, 2 ** round(math.log2(max(1, fewest / 8)))))
    of = f"the {fewest} images of {facts.class_names[counts.index(fewest)]!r}, the smallest class"
    why = f"about an eighth of {of}; published: 128 of 5,000, 64 of 500"
    return Choice("selection.num_clusters", number, why if fewest >= 128 else f"16 at least; {of}, may all be selected")


def _update(total: int) -> list[Choice]:
    num_images = min(total, 2000, max(256, total // 25))
    batch = min(total, 128 if num_images >= 1000 else 64)
    of_all = f"a 25th of {total} images as published for CIFAR-10, at least 256"
    return [
        Choice("update.num_images", num_images, "all images" if num_images == total else of_all),
        Choice("update.batch_size", batch, "128 as published, 64 with fewer than 1000 images per update"),
    ]


def _whole_set(total: int, num_decoded: int) -> list[Choice]:
    """Returns longer trainings of the whole-set baseline for small sets; none where the default is long enough."""
    usual = Evaluation()
    # Quick evaluations divide the epochs of the whole set by ten, see `evaluate.num_epochs`.
    epochs = 10 * math.ceil(usual.quick_epochs * num_decoded / total)
    if epochs <= usual.whole_set_epochs:
        return []
    return [
        Choice("evaluation.whole_set_epochs", epochs, "the baseline sees as many images as the distilled set gives")
    ]


def config_of(choices: Sequence[Choice]) -> Config:
    """Returns the settings with these choices, the others from DREAM+; raises UsageError if they break a rule."""
    values: Settings = {}
    for choice in choices:
        put(values, choice.path, choice.value)
    return parse_config(values)


def suggest_steps(
    config: Config, given: Mapping[str, Any], predict: Callable[[Config], Forecast], warm_up_s: float, budget_s: float
) -> list[Choice]:
    """Suggests as many steps as a time budget has room for.

    Args:
        config: All other settings.
        given: Settings of the user, by path; inner_steps may be among them.
        predict: Returns the forecast of a run from its settings.
        warm_up_s: Seconds of the training of a network before an outer step.
        budget_s: Time budget in seconds; a tenth stays free for the start, the end and the error of the forecast.

    Raises:
        UsageError: If the budget is less than the time of a run of one step.
    """

    def of(steps: tuple[int, int]) -> Config:
        return config.model_copy(update={"outer_steps": steps[0], "inner_steps": steps[1]})

    one_step = predict(of((1, 1)))
    inner = given.get("inner_steps") or _inner_steps(config, predict(of((1, 10))).step_s, warm_up_s)
    fewer = [] if "inner_steps" in given else [(1, number) for number in range(1, inner)]
    candidates = [*fewer, *((outer, inner) for outer in range(1, _MOST_OUTER_STEPS + 1))]
    usable_s = _USED_SHARE * budget_s
    found = bisect.bisect_right(candidates, usable_s, key=lambda steps: predict(of(steps)).wall_s)
    if found == 0:
        fewest = predict(of(candidates[0]))
        raise UsageError(
            f"time-budget must be at least {fewest.wall_s / _USED_SHARE:.3g} s, for the start "
            f"({fewest.start_s:.3g} s), the first {'step' if candidates[0][1] == 1 else 'outer step'} and the end of a "
            f"run; got {budget_s:g} s"
        )
    outer, inner = candidates[found - 1]
    seen = predict(of((outer, inner)))
    measured = f"a step takes {seen.step_s:.3g} s here, the start {one_step.start_s:.3g} s"
    limit = "the published number" if outer == _MOST_OUTER_STEPS else f"{measured}; together {seen.wall_s:.0f} s"
    every = max(1, min(config.checkpoint_every, outer * inner, round(_CHECKPOINT_S / seen.step_s)))
    return [
        Choice("outer_steps", outer, limit),
        Choice("inner_steps", inner, "per network, of which the warm-up takes at most a fifth; published: 100"),
        Choice("checkpoint_every", every, "about a minute of work that a crash can lose"),
    ]


def _inner_steps(config: Config, step_s: float, warm_up_s: float) -> int:
    """Returns the steps of a network: whole selection intervals that make its warm-up cheap beside them."""
    interval = config.selection.interval
    wanted = max(_FEWEST_INNER_STEPS, warm_up_s / (_WARM_UP_SHARE * step_s))
    return min(_MOST_INNER_STEPS, interval * math.ceil(wanted / interval))
