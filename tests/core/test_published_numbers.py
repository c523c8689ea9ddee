"""Decode, augmentation, objectives and pixel steps reproduce numbers that the published code computed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dream_ray.core.images.augment import augment, rotation_angle, scale_factor, view_of
from dream_ray.core.images.decode_schedule import decoded_count
from dream_ray.core.images.multiformation import decode
from dream_ray.core.matching.derivatives import Differentiate, by_autograd, by_transforms
from dream_ray.core.matching.objectives import DISTANCES, Objective, Parameters, Signals, matching_gradient, signals
from dream_ray.core.matching.pixel_sgd import pixel_step

NUMBERS = np.load(Path(__file__).resolve().parents[1] / "published_numbers.npz")
LOSSES = sorted(key.removesuffix("/loss") for key in NUMBERS.files if key.startswith("match/") and key.endswith("loss"))


def published(key: str) -> Tensor:
    return torch.from_numpy(NUMBERS[key])


@pytest.mark.parametrize("mode", ["single", "multi"])
@pytest.mark.parametrize("case", ["h8_f2", "h9_f2", "h8_f3"])
def test_decode(case: str, mode: str) -> None:
    stored, factor = published(f"decode/{case}/input"), int(case[-1])
    decoded = decode(stored, factor, mode, 0)
    torch.testing.assert_close(decoded, published(f"decode/{case}/{mode}"), rtol=1e-5, atol=1e-6)
    assert len(decoded) == decoded_count(len(stored), factor, mode, 0)


def test_decode_bound() -> None:
    decoded = decode(published("decode/bound_n20_f3_128/input"), 3, "bound", 128)
    torch.testing.assert_close(decoded, published("decode/bound_n20_f3_128/output"), rtol=1e-5, atol=1e-6)
    assert len(decoded) == decoded_count(20, 3, "bound", 128) == 125


@pytest.mark.parametrize(("case", "mode"), [("h8_f2", "single"), ("h8_f3", "multi"), ("h9_f2", "multi")])
def test_decode_order(case: str, mode: str) -> None:
    """Checks the stored image of each decoded one: stored image i is the constant i."""
    index = published(f"decode/{case}/{mode}_index")
    num_stored = len(published(f"decode/{case}/input"))
    side = int(case[1])
    stored = torch.arange(num_stored, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 1, side, side)
    assert torch.equal(decode(stored, int(case[-1]), mode, 0)[:, 0, 0, 0].long(), index)


def _draw(name: str) -> dict[str, np.ndarray]:
    draws, operation = NUMBERS[f"augment/{name}/draws"], name.split("_")[0]
    convert = {
        "scale": scale_factor,
        "rotate": lambda u: rotation_angle(u[0]),
        "flip": lambda u: u[0] < 0.5,
        "brightness": lambda u: u[0],
        "saturation": lambda u: u[0],
        "contrast": lambda u: u[0],
    }
    return {operation: np.asarray(convert.get(operation, lambda values: values)(draws))}


@pytest.mark.parametrize("num_draws", [1, 3], ids=["one draw for the batch", "one draw per image"])
@pytest.mark.parametrize(
    "name",
    [
        *("brightness", "saturation", "contrast", "crop", "cutout_inside", "cutout_edge"),
        *("scale", "rotate", "flip_yes", "flip_no"),
    ],
)
def test_augmentation(name: str, num_draws: int) -> None:
    params = {key: np.stack([value] * num_draws) for key, value in _draw(name).items()}
    result = augment(published("augment/input"), view_of(params, torch.device("cpu")))
    # The published rotation itself is 4.8e-6 from float64: positions of a grid are rounded, on each CPU in another way.
    atol = 1e-5 if name in ("scale", "rotate") else 1e-6
    torch.testing.assert_close(result, published(f"augment/{name}/output"), rtol=1e-5, atol=atol)
    exact = augment(published("augment/input").double(), view_of(params, torch.device("cpu"), torch.float64))
    assert (result - exact).abs().max() < 1e-5


def _convnet(parameters: Parameters, images: Tensor) -> tuple[Tensor, Tensor]:
    x = images
    for i in range(3):
        x = F.conv2d(x, parameters[f"trunk.conv{i}.weight"], parameters[f"trunk.conv{i}.bias"], padding=1)
        x = F.group_norm(x, x.shape[1], parameters[f"trunk.norm{i}.weight"], parameters[f"trunk.norm{i}.bias"])
        x = F.avg_pool2d(F.relu(x), 2)
    features = x.flatten(1)
    return features, F.linear(features, parameters["head.weight"], parameters["head.bias"])


def _parameters() -> Parameters:
    prefix = "convnet/param/"
    names = [key.removeprefix(prefix) for key in NUMBERS.files if key.startswith(prefix)]
    ours = {name: name.replace("classifier.", "head.") for name in names}
    return {new if new.startswith("head.") else f"trunk.{new}": published(prefix + name) for name, new in ours.items()}


@pytest.mark.parametrize("differentiate", [by_autograd, by_transforms])
@pytest.mark.parametrize("case", LOSSES)
def test_matching_loss_and_its_gradient(case: str, differentiate: Differentiate) -> None:
    kind, rest = case.removeprefix("match/").split("_", 1)
    distance, which = rest.rsplit("_", 1)
    everything = which == "all"
    objective = Objective(float(kind == "bidirectional"), 1.0, distance, everything, everything)
    parameters, label = _parameters(), torch.tensor(int(NUMBERS["match/label"]))
    real = signals(_convnet, parameters, published("match/real"), label, objective, differentiate)

    def synthetic_signals(synthetic: Tensor) -> Signals:
        return signals(_convnet, parameters, synthetic, label, objective, differentiate, again=True)

    loss, gradient = matching_gradient(synthetic_signals, published("match/synthetic"), real, objective, differentiate)
    torch.testing.assert_close(loss, published(f"{case}/loss"), rtol=1e-5, atol=1e-5)
    if f"{case}/d_synthetic" in NUMBERS.files:
        torch.testing.assert_close(gradient, published(f"{case}/d_synthetic"), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layer", ["conv", "linear"])
def test_cosine_is_the_layer_distance_of_dc(layer: str) -> None:
    real, synthetic = published(f"dc_distance/{layer}/real"), published(f"dc_distance/{layer}/synthetic")
    torch.testing.assert_close(DISTANCES["cosine"](real, synthetic), published(f"dc_distance/{layer}/value"))


def test_pixel_steps() -> None:
    """Images are equal at every gradient; at the end, the published loop has not yet applied all of its momentum."""
    lr, m = float(NUMBERS["pixel_steps/lr"]), float(NUMBERS["pixel_steps/momentum"])
    gradients = published("pixel_steps/gradients").double()
    seen, at_end = published("pixel_steps/value_at_gradient"), published("pixel_steps/value_at_end")
    rounds, num_classes = gradients.shape[:2]
    for label in range(num_classes):
        value, velocity = seen[0, label].double(), torch.zeros(2, dtype=torch.float64)
        for number in range(rounds):
            torch.testing.assert_close(value.float(), seen[number, label], rtol=1e-5, atol=1e-6)
            value, velocity = pixel_step(
                value, velocity, gradients[number, label], lr=lr, momentum=m, num_classes=num_classes
            )
        pending = lr * velocity * m ** (num_classes - label) * (1 - m**label) / (1 - m)
        torch.testing.assert_close((value + pending).float(), at_end[label], rtol=1e-5, atol=1e-6)
