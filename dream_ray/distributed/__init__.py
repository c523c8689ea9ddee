"""Everything that runs on Ray (layer 3); the only package that imports Ray."""

import os

# Workers would start by `uv run` if the driver did, which fails outside of the project's directory. Ray reads the
# variable when it is imported, which only modules of this package do.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
