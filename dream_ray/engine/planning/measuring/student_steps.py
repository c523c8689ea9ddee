"""The steps of trajectory matching: the training of experts, and the steps of students."""

from collections.abc import Collection

import numpy as np
import torch

from dream_ray.config import Config
from dream_ray.core import rng
from dream_ray.core.images.normalisation import Normalise
from dream_ray.data.store.store import Store
from dream_ray.engine.matching.class_selector import ClassSelector
from dream_ray.engine.matching.expert_segments import Segment, Segments
from dream_ray.engine.matching.state import ClassState, RunState
from dream_ray.engine.matching.trajectory_matcher import TrajectoryMatcher
from dream_ray.engine.networks.from_config import build, first_passes, networks_on, trajectory_length
from dream_ray.engine.networks.functional import tensors_of
from dream_ray.engine.networks.program_form import ProgramForm
from dream_ray.engine.networks.training import RealImages
from dream_ray.engine.planning.forecast import StepCosts
from dream_ray.engine.planning.measuring.class_steps import pass_s, random_images
from dream_ray.engine.planning.measuring.round_timer import MOST_ROUNDS, RoundTimer
from dream_ray.engine.run.class_costs import class_counts

# A student takes at most this many steps here; the parameters that further steps would keep are added.
_MOST_STEPS = 3


class StudentSteps:
    """Training and matching on random images; the construction only trains networks.

    Attributes:
        more_bytes: Memory of a whole student beyond that of the measured one.
        num_features: Features of an image.
        kept_features: None are kept.
        snapshot_bytes: Size of a network snapshot.
    """

    kept_features = 0

    def __init__(
        self, config: Config, store: Store, normalise: Normalise, timer: RoundTimer, form: ProgramForm
    ) -> None:
        self._config, self._store, self._timer, self._normalise = config, store, timer, normalise
        short_update = config.update.model_copy(update={"num_images": config.update.batch_size, "epochs": 1})
        student_steps = min(config.trajectory.student_steps, _MOST_STEPS)
        short_trajectory = config.trajectory.model_copy(
            update={"student_steps": student_steps, "segments": 1, "max_start": MOST_ROUNDS + 2}
        )
        self._short = config.model_copy(update={"update": short_update, "trajectory": short_trajectory})
        self._images = random_images(config, store)
        data = RealImages(self._images, np.zeros(len(self._images), dtype=np.int64))
        experts = networks_on(self._short, lambda _: data, normalise, lambda: build(config, store), form=form)
        self._expert = experts.trajectory(0)
        self._snapshot = next(self._expert)
        self._start = {name: t.clone() for name, t in tensors_of(self._snapshot.network).items()}
        self._train()
        self.num_features = self._snapshot.network.head.in_features
        self.snapshot_bytes = sum(tensor.nbytes for tensor in self._start.values())
        self.more_bytes = (config.trajectory.student_steps - student_steps) * self.snapshot_bytes

    def _train(self) -> None:
        with self._timer.phase("batch"):
            self._snapshot = next(self._expert)

    def begin(self) -> None:
        """Embeds real images like the initialisation, and makes synthetic images and a target."""
        ClassSelector(self._short, {0: self._images}, len(self._images), self._normalise).embed(self._snapshot, 0)
        self._matcher = TrajectoryMatcher(self._short, self._snapshot.network, self._normalise, lambda segments: {})
        self._state = RunState(classes={label: self._random_state(label) for label in range(self._store.num_classes)})
        self._target = {name: t.clone() for name, t in tensors_of(self._snapshot.network).items()}

    def run_round(self, number: int) -> None:
        """Matches a segment and trains."""
        segments = Segments(0, number, (Segment(0, self._start, self._target),))
        with self._timer.phase("student"):
            self._matcher.match(segments, tuple(self._state.classes), self._state)
        self._train()

    def run_together(self, beside: Collection[str]) -> None:
        """Does nothing: no thread trains networks while a worker matches trajectories."""
        assert not beside, beside

    def costs(self) -> StepCosts:
        """Returns the times of a run: a segment counts as a class, the training of all experts as the first warm-up."""
        config, settings, counts = self._config, self._config.trajectory, class_counts(self._config, self._store)
        update_s = config.update.epochs * pass_s(config, self._timer, sum(counts), config.update.num_images)
        looking_s = first_passes(config) * pass_s(config, self._timer, sum(counts))
        student_s = self._timer.median("student") / self._short.trajectory.student_steps
        return StepCosts(
            update_s=0.0,
            warm_up_s=0.0,
            first_warm_up_s=looking_s + settings.num_experts * (trajectory_length(config) - 1) * update_s,
            select_s=0.0,
            match_s=settings.student_steps * student_s,
            snapshot_bytes=self.snapshot_bytes,
        )

    def _random_state(self, label: int) -> ClassState:
        shape = (self._config.ipc, *self._store.shape_CHW)
        noise = rng.stream(0, "measured synthetic images", label=label).standard_normal(shape, dtype=np.float32)
        images = torch.from_numpy(noise).to(self._normalise.device)
        nothing = torch.empty(0, dtype=torch.int64)
        return ClassState(images, torch.zeros_like(images), nothing, nothing)
