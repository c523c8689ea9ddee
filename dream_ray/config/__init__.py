"""Validated configuration of a run (layer 1)."""

from dream_ray.config.frameworks import FRAMEWORKS
from dream_ray.config.load import dump_config, load_config, parse_config, read_settings
from dream_ray.config.nested import put
from dream_ray.config.presets import PRESETS
from dream_ray.config.schema import Config

__all__ = ["FRAMEWORKS", "PRESETS", "Config", "dump_config", "load_config", "parse_config", "put", "read_settings"]
