"""How a run ends."""

import json
from pathlib import Path
from typing import Any

from dream_ray import api, storage
from dream_ray.config import parse_config
from dream_ray.engine.artefacts import read_synthetic
from dream_ray.engine.run import finish_run, open_run


def test_a_run_on_gpus_ends_on_a_machine_without(tiny: dict[str, Any], digits_store: str, out: str) -> None:
    api.distill(parse_config(tiny), store=digits_store, out=out, local=True)
    product = f"{out}/synthetic.parquet"
    made = read_synthetic(product)[0]
    storage.delete(product)
    environment = Path(out, "env.json")
    environment.write_text(json.dumps({**json.loads(environment.read_text()), "device": "cuda"}))
    finish_run(open_run(out))
    assert read_synthetic(product)[0].images_LNCHW.equal(made.images_LNCHW)
