"""Weights from elsewhere: state dicts under our architectures, torchvision's and timm's, made here; no network."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.engine.models.importing import output_rows
from dream_ray.engine.models.model import Model
from dream_ray.errors import UsageError
from tests.models import CLASSES, NETWORK, train
from tests.runs import CPU

GIVEN: dict[str, Any] = {"epochs": None, "recipe": {"normalisation": "store"}}


def as_file(model: Model, path: Path, order: list[int]) -> str:
    """Writes the weights of a model with its outputs in another order."""
    tensors = model.load(CPU).state_dict()
    tensors |= {name: tensors[name][order] for name in ("head.weight", "head.bias")}
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(path))
    else:
        plain = {f"module.{name.removeprefix('trunk.').replace('head', 'fc')}": one for name, one in tensors.items()}
        torch.save({"state_dict": plain, "epoch": 3}, path)
    return str(path)


@pytest.mark.parametrize("name", ["weights.safetensors", "checkpoint.pth"])
def test_outputs_are_brought_into_the_order_of_the_store(
    trained: Model, split_store: str, tmp_path: Path, name: str
) -> None:
    order = [2, 0, 3, 1]
    file = as_file(trained, tmp_path / name, order)
    model = train(split_store, tmp_path / "model", weights=file, classes=[CLASSES[o] for o in order], **GIVEN)
    assert model.description.class_names == CLASSES
    assert model.description.accuracy == trained.description.accuracy
    assert torch.equal(model.load(CPU).head.weight, trained.load(CPU).head.weight)
    assert model.description.origin["weights"] == name


def test_a_store_may_have_fewer_classes(trained: Model, tmp_path: Path) -> None:
    few = str(tmp_path / "store")
    ingest(IngestSettings(source="digits", classes=("8", "3"), max_per_class=20), few)
    file = as_file(trained, tmp_path / "weights.safetensors", [0, 1, 2, 3])
    normalisation = trained.description.normalisation.model_dump()
    model = train(
        few, tmp_path / "model", weights=file, classes=CLASSES, epochs=None, recipe={"normalisation": normalisation}
    )
    again = train(few, tmp_path / "again", weights=trained.path, network=None, epochs=None, recipe={})
    assert torch.equal(again.load(CPU).head.weight, model.load(CPU).head.weight)
    rows = [CLASSES.index(name) for name in model.description.class_names]
    assert torch.equal(model.load(CPU).head.weight, trained.load(CPU).head.weight[rows])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "missing.pth"}, "a model or an existing file; got"),
        ({"network": None}, "net must be given with a file of weights"),
        ({"classes": None}, "classes must be given with a file of weights"),
        ({"recipe": {}}, "normalisation must be given with a file of weights"),
        ({"recipe": {"lr": 0.1}}, "weights take no setting but normalisation; got lr"),
        ({"epochs": 3}, "epochs must be left out with weights"),
        ({"classes": "0,3,5"}, "classes must name each of the 4 outputs of weights"),
        ({"classes": "0,3,5,9"}, "'8' (1 of 4) are not among its outputs, such as '0', '3', '5'. Give --classes FILE"),
        (
            {"network": "convnet"},
            "they lack trunk.conv2.bias, trunk.conv2.weight, trunk.norm2.bias ...: give the --net",
        ),
        ({"weights": "torchvision:resnet18"}, "net must be left out with weights torchvision:resnet18"),
        ({"weights": "torchvision:resnet19", "network": None}, "weights torchvision:NAME must name one of alexnet"),
    ],
)
def test_wrong_weights_are_refused(
    trained: Model, split_store: str, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = as_file(trained, tmp_path / "weights.safetensors", [0, 1, 2, 3])
    given = {"weights": file, "classes": list(CLASSES), **GIVEN, **changes}
    with pytest.raises(UsageError, match=re.escape(message)):
        train(split_store, tmp_path / "model", **given)
    assert not (tmp_path / "model" / "model.json").exists()


def test_other_widths_and_files_are_refused(trained: Model, split_store: str, tmp_path: Path) -> None:
    file = as_file(trained, tmp_path / "weights.pth", [0, 1, 2, 3])
    wider = NETWORK.model_copy(update={"options": {"depth": 2, "width": 9}})
    given = {"classes": list(CLASSES), **GIVEN}
    shapes = "trunk.conv0.weight must have the shape (9, 1, 3, 3), and has (8, 1, 3, 3)"
    with pytest.raises(UsageError, match=re.escape(shapes)):
        train(split_store, tmp_path / "model", weights=file, network=wider, **given)
    (tmp_path / "pickled.pth").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UsageError, match=r"reading the weights .*pickled.pth failed: .*Give a state dict of tensors"):
        train(split_store, tmp_path / "model", weights=str(tmp_path / "pickled.pth"), **given)
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    with pytest.raises(UsageError, match="must hold a state dict, names with tensors; got dict"):
        train(split_store, tmp_path / "model", weights=str(tmp_path / "numbers.pth"), **given)


def test_names_may_have_meanings_and_must_be_unique() -> None:
    assert output_rows(["n2 cat", "n1 dog", "n3"], ["n1", "n2"], "weights") == [1, 0]
    with pytest.raises(UsageError, match="one output for each class; 'n1' names several"):
        output_rows(["n1", "n1", "n2"], ["n1", "n2"], "weights")


@pytest.fixture(scope="module")
def colour_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Coloured noise of 32 px in two of ImageNet's classes, by torchvision's names; read only."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("tench", "goldfish"):
            (folder / "images" / split / name).mkdir(parents=True)
            for number in range(4):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "images" / split / name / f"{number}.png")
    ingest(IngestSettings(source=str(folder / "images")), str(folder / "store"))
    return str(folder / "store")


@pytest.mark.slow
def test_weights_of_torchvision_come_from_its_cache_alone(
    colour_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import resnet18

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    given: dict[str, Any] = {"epochs": None, "network": None, "recipe": {}}
    for name in ("torchvision:resnet18", "torchvision:resnet18.IMAGENET1K_V1"):
        with pytest.raises(UsageError, match="nothing is downloaded; there is no .*resnet18-f37072fd.pth. Download"):
            train(colour_store, tmp_path / "model", weights=name, **given)
    with pytest.raises(UsageError, match=r"must be one of IMAGENET1K_V1; got 'V9'"):
        train(colour_store, tmp_path / "model", weights="torchvision:resnet18.V9", **given)
    theirs = resnet18(weights=None)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(theirs.state_dict(), tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth")
    model = train(colour_store, tmp_path / "model", weights="torchvision:resnet18", **given)
    assert model.description.class_names == ("goldfish", "tench")
    assert model.description.normalisation.mean == (0.485, 0.456, 0.406)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.load(CPU)(images)[1], theirs.eval()(images)[:, [1, 0]])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_weights_of_timm_come_from_the_cache_of_hugging_face(
    colour_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm")
    import huggingface_hub

    given: dict[str, Any] = {"epochs": None, "network": None, "recipe": {}, "weights": "timm:resnet18.a1_in1k"}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, file: None)
    with pytest.raises(UsageError, match=r"nothing is downloaded; .* `hf download timm/resnet18.a1_in1k`"):
        train(colour_store, tmp_path / "model", **given)
    theirs = timm.create_model("resnet18", pretrained=False)
    save_file(theirs.state_dict(), str(tmp_path / "model.safetensors"))
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda repository, file: str(tmp_path / "model.safetensors")
    )
    with pytest.raises(UsageError, match="are not among its outputs, such as 'n01440764'"):
        train(colour_store, tmp_path / "model", **given)
    names = ["tench", "goldfish", *(f"other {number}" for number in range(998))]
    model = train(colour_store, tmp_path / "model", classes=names, **given)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.load(CPU)(images)[1], theirs.eval()(images)[:, [1, 0]])
