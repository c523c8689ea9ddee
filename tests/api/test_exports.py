"""Export of the set of an unfinished run."""

from pathlib import Path

import torch

import dream_ray
from dream_ray.config import Config
from tests.runs import create_run, run_all


def test_the_newest_checkpoint_of_an_unfinished_run_is_exported(
    tiny_config: Config, four_digits_store: str, out: str, tmp_path: Path
) -> None:
    run_all(create_run(out, tiny_config, four_digits_store), 1)  # ends without products, as after a kill
    assert not (Path(out) / "synthetic.parquet").exists()
    dream_ray.export(out, tmp_path / "export", to="npz", mosaics=True)
    found, expected = dream_ray.sets.read(tmp_path / "export"), dream_ray.load_synthetic(out)
    normalised = expected.normalise(torch.from_numpy(found.images(layout="NCHW")))
    assert torch.allclose(normalised, expected.images_NCHW, atol=1e-5)
    assert found.recipe["step"] == tiny_config.total_steps
