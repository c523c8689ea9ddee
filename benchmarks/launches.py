"""Launches of an inner step on a GPU at the published CIFAR-10 setting, by part; needs no GPU.

    python -m benchmarks.launches

The counts are averages over an outer step of 100 inner steps: a first selection, nine later ones, 100 steps of all ten
classes and 99 updates. The warm-up of a network before its first inner step is not included.

Eager programs and everything around programs are counted on the stand-in GPU of the tests: operations without views and
allocations, each of which launches at least one kernel. A compiled program counts as the kernels and library calls in
the code that Inductor generates for an H100. A replay from a CUDA graph counts as one launch, and so does a copy of
several tensors. K-means is never compiled.

The stand-in counts one call of each part, on small images and a narrow network: the number of operations depends on
neither. It runs all 5,000 images of a class, all clusters, all classes and all batches of an update. Compiled programs
are lowered at the published shapes.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.report import provenance, write_result
from benchmarks.step_time import CLASSES_OF_SET, normalisation_on, setting
from dream_ray.config import Config
from dream_ray.config.sections import Selection
from dream_ray.core.images.normalisation import Normalisation
from dream_ray.data.store.images import ImageChunks
from dream_ray.engine.matching.class_matcher import ClassMatcher
from dream_ray.engine.matching.class_selector import ClassSelector
from dream_ray.engine.matching.state import RunState
from dream_ray.engine.networks.device_images import resident
from dream_ray.engine.networks.from_config import networks_on
from dream_ray.engine.networks.program_form import INDUCTOR, ProgramForm
from dream_ray.engine.networks.sources import NetworkSource
from dream_ray.engine.networks.training import RealImages
from dream_ray.engine.run.environment import fixed_arithmetic
from dream_ray.nets import Classifier, build_network
from tests.standin_gpu.gpu import standin_gpu
from tests.standin_gpu.lowering import BACKEND, is_kernel, launches_of
from tests.standin_gpu.parts import CLASS_STEP, FIRST_SELECTION, LATER_SELECTION, UPDATE, count_outer_step
from tests.standin_gpu.tally import Tally, record, summed, unrecorded

MODES = {"eager": None, "compiled": INDUCTOR, "graphs": INDUCTOR}
CLASS_BATCHES, EMBEDDING_BATCHES = (1, 10), (128, 1024)
CLASS_STEPS, SELECTION, UPDATES = "class steps", "selection", "update"
BUDGETS = {"eager": {CLASS_STEPS: 650, SELECTION: 250}, "compiled": {CLASS_STEPS: 250, SELECTION: 150, UPDATES: 400}}
"""Launches of an inner step with `class_batch` 10; replays from graphs have those of compiled programs."""
PROGRAM = "compiled program"


def form_of(mode: str, class_batch: int) -> ProgramForm:
    """Returns the form of a column of the table."""
    return ProgramForm(class_batch, class_batch > 1, MODES[mode], is_graphed=mode == "graphs")


@dataclass(frozen=True)
class Scale:
    """Sizes that change the shapes and not the number of operations."""

    side: int
    width: int
    images_per_class: int = 5000


PUBLISHED = Scale(side=32, width=128)
SMALL = Scale(side=8, width=4)


def settings_at(scale: Scale, embedding_batch: int) -> Config:
    """Returns the settings of an outer step that selects at all of its three inner steps.

    Updates and later selections are counted when they have run before: an optimizer starts without momentum.
    """
    config, usual = setting(), Selection()
    restart = {"restart": usual.restart, "restart_steps": usual.restart_steps}
    changes: dict[str, Any] = {
        "outer_steps": 1,
        "inner_steps": 3,
        "network": config.network.model_copy(update={"options": {**config.network.options, "width": scale.width}}),
        "initialisation": config.initialisation.model_copy(update={"strategy": "noise"}),
        "selection": config.selection.model_copy(update={**restart, "interval": 1, "embedding_batch": embedding_batch}),
        "update": config.update.model_copy(update={"warmup_epochs": 0}),
    }
    return config.model_copy(update=changes)


def components_at(
    scale: Scale, config: Config, normalise: Normalisation, form: ProgramForm
) -> tuple[NetworkSource, ClassSelector, ClassMatcher]:
    """Returns source, selector and matcher of ten classes of random images, which are resident on the device."""
    shape = (3, scale.side, scale.side)
    size = (scale.images_per_class, *shape)
    real = list(np.random.default_rng(0).integers(0, 256, size=(CLASSES_OF_SET, *size), dtype=np.uint8))

    def build() -> Classifier:
        options = config.network.options
        return build_network(config.network.name, num_classes=CLASSES_OF_SET, shape_CHW=shape, options=options)

    labels = np.repeat(np.arange(CLASSES_OF_SET), scale.images_per_class)
    data = RealImages(resident(ImageChunks(real), normalise.device), labels)
    source = networks_on(config, lambda _: data, normalise, build, form=form)
    of_classes = {label: resident(ImageChunks([images]), normalise.device) for label, images in enumerate(real)}
    selector = ClassSelector(config, of_classes, scale.images_per_class, normalise, form)
    return source, selector, ClassMatcher(config, selector, CLASSES_OF_SET)


@contextmanager
def compiled_as_one_operation() -> Iterator[None]:
    """Counts a call of a compiled program as one operation, PROGRAM, for a block."""

    def compiled(program: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            record(operation=PROGRAM)
            with unrecorded():
                return program(*arguments)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", compiled)
        yield


def counts_of_parts(form: ProgramForm, embedding_batch: int, scale: Scale = SMALL) -> dict[str, Tally]:
    """Returns the counts of a first and a later selection, a step of all classes and an update, on the stand-in GPU."""
    config = settings_at(scale, embedding_batch)
    with standin_gpu(), compiled_as_one_operation():
        normalise = normalisation_on(torch.device("cuda"))
        source, selector, matcher = components_at(scale, config, normalise, form)
        tallies = count_outer_step(config, (source, selector.select_all, matcher), RunState())
    last = {FIRST_SELECTION: 1, LATER_SELECTION: 1, CLASS_STEP: CLASSES_OF_SET // form.match_batch, UPDATE: 1}
    return {part: summed(tallies[part][-calls:]) for part, calls in last.items()}


def calls_of_programs(
    class_batch: int, embedding_batch: int, scale: Scale = PUBLISHED
) -> dict[str, Callable[[], object]]:
    """Returns calls for `launches_of`: a first call of each compiled program, by part."""
    form = replace(form_of("compiled", class_batch), backend=BACKEND)
    config = settings_at(scale, embedding_batch)
    source, selector, matcher = components_at(scale, config, normalisation_on(torch.device("cpu")), form)
    networks = source.trajectory(0)
    snapshot = next(networks)
    state = RunState(classes=matcher.initial_states(snapshot))
    for class_state in state.classes.values():
        class_state.indices = torch.arange(config.real_batch)
    pixels = torch.zeros(embedding_batch, 3, scale.side, scale.side, dtype=torch.uint8)
    return {
        CLASS_STEPS: lambda: matcher.match(snapshot, tuple(range(class_batch)), state),
        SELECTION: lambda: selector.features.of(snapshot.network)(pixels),
        UPDATES: lambda: next(networks),
    }


@dataclass(frozen=True)
class Programs:
    """The launches of one call of every compiled program, in the order of the generated code.

    Attributes:
        step: Of a step, by `class_batch`.
        features: Of the features of a batch, by its size.
        update: Of a batch of an update.
    """

    step: dict[int, list[str]]
    features: dict[int, list[str]]
    update: list[str]

    @classmethod
    def lowered(cls) -> "Programs":
        """Lowers them, in a minute or two."""
        one, ten = (calls_of_programs(*sizes) for sizes in zip(CLASS_BATCHES, EMBEDDING_BATCHES, strict=True))
        step, features = ([launches_of(calls[part]) for calls in (one, ten)] for part in (CLASS_STEPS, SELECTION))
        return cls(
            dict(zip(CLASS_BATCHES, step, strict=True)),
            dict(zip(EMBEDDING_BATCHES, features, strict=True)),
            launches_of(one[UPDATES]),
        )

    def summary(self) -> dict[str, dict[str, int]]:
        """Returns the numbers of kernels and library calls, by program."""
        programs = {f"class step, class_batch {size}": names for size, names in self.step.items()}
        programs |= {f"features, batch of {size}": names for size, names in self.features.items()}
        programs["update, one batch"] = self.update
        kernels = {program: sum(is_kernel(name) for name in names) for program, names in programs.items()}
        return {
            program: {"kernels": count, "library_calls": len(programs[program]) - count}
            for program, count in kernels.items()
        }


def per_inner_step(counts: Mapping[str, Tally], programs: Mapping[str, int]) -> dict[str, float]:
    """Averages the launches of the parts over an outer step.

    Args:
        counts: Of `counts_of_parts`.
        programs: Launches of a call of the compiled program of every part; empty for eager programs.
    """

    def launches(part: str, tally: Tally) -> int:
        return sum(count * (programs[part] if name == PROGRAM else 1) for (_, name), count in tally.operations.items())

    config = setting()
    steps, selections = config.inner_steps, config.inner_steps // config.selection.interval
    cold, warm = (launches(SELECTION, counts[part]) for part in (FIRST_SELECTION, LATER_SELECTION))
    return {
        CLASS_STEPS: launches(CLASS_STEPS, counts[CLASS_STEP]),
        SELECTION: (cold + (selections - 1) * warm) / steps,
        UPDATES: (steps - 1) * launches(UPDATES, counts[UPDATE]) / steps,
    }


Table = dict[str, dict[int, dict[str, float]]]
"""Launches of an inner step by mode, `class_batch` and row."""


def count_all(programs: Programs) -> Table:
    """Counts every form."""
    found: Table = {mode: {size: {} for size in CLASS_BATCHES} for mode in MODES}
    for mode, class_batch, size in product(MODES, CLASS_BATCHES, EMBEDDING_BATCHES):
        launches = {
            CLASS_STEPS: len(programs.step[class_batch]),
            SELECTION: len(programs.features[size]),
            UPDATES: len(programs.update),
        }
        averages = per_inner_step(counts_of_parts(form_of(mode, class_batch), size), launches)
        found[mode][class_batch] |= {row_of(part, size): count for part, count in averages.items()}
    return found


def row_of(part: str, embedding_batch: int) -> str:
    """Returns the row of a part in the table."""
    return f"{part}, batches of {embedding_batch}" if part == SELECTION else part


def formatted(found: Table) -> str:
    """Returns the table as text; the budgets are those of ten classes together."""
    lines = [f"{'':26}", f"{'class_batch':26}"]
    for mode in found:
        heading = "".join(f"{size:6}" for size in CLASS_BATCHES) + f"{'budget':>8}" * (mode in BUDGETS)
        lines = [lines[0] + mode.rjust(len(heading)), lines[1] + heading]
    for part, size in product((CLASS_STEPS, SELECTION, UPDATES), EMBEDDING_BATCHES):
        row = row_of(part, size)
        line = f"{row:26}"
        for mode, by_size in found.items():
            line += "".join(f"{by_size[each][row]:6,.0f}" for each in CLASS_BATCHES)
            line += f"{BUDGETS[mode].get(part, '-'):>8}" if mode in BUDGETS else ""
        lines.append(line)
    return "\n".join(dict.fromkeys(lines))


def main() -> None:
    """Counts, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    with fixed_arithmetic(torch.get_num_threads()):
        programs = Programs.lowered()
    found = count_all(programs)
    print(formatted(found))
    result = {"launches_of_inner_step": found, "budgets": BUDGETS, "launches_of_programs": programs.summary()}
    write_result("launches", {**provenance(sys.argv[1:]), **result})


if __name__ == "__main__":
    main()
