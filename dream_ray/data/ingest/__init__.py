"""Ingest: sources of labelled images become a store, in stages of independent, repeatable jobs.

    list       each shard of the sources lists the locations of its images    listing.py
    compare    digest the training images, only for `test_fraction`           contents.py
    plan       assign the listed images to the files of the store             plan.py
    write      each file: read, decode, resize, encode, digest, sum up        writing.py
    finish     combine the notes of all files into the manifest, last         finish.py

Each finished job leaves a file in the work directory of the store. A restarted ingest runs only the missing jobs, so
the store is the same whatever was killed.
"""

from dream_ray.data.ingest.jobs import Mapper, run_here, with_retries
from dream_ray.data.ingest.pipeline import ingest
from dream_ray.data.ingest.settings import PATHS, IngestSettings
from dream_ray.data.ingest.target import IDENTITY

__all__ = ["IDENTITY", "PATHS", "IngestSettings", "Mapper", "ingest", "run_here", "with_retries"]
