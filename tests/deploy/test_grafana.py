"""The dashboard shows metrics that exist."""

import json
import re
from pathlib import Path

import yaml

from dream_ray.distributed.train.metrics import GAUGES

GRAFANA = Path(__file__).resolve().parents[2] / "deploy" / "grafana"


def test_every_metric_is_shown_and_no_other() -> None:
    dashboard = json.loads((GRAFANA / "dream_ray.json").read_text())
    asked = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    assert set(re.findall(r"ray_(dream_ray_\w+)", asked)) == set(GAUGES)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in dashboard["panels"])


def test_prometheus_reads_the_nodes_that_ray_lists() -> None:
    (job,) = yaml.safe_load((GRAFANA / "prometheus.yaml").read_text())["scrape_configs"]
    assert job["file_sd_configs"] == [{"files": ["/tmp/ray/prom_metrics_service_discovery.json"]}]
