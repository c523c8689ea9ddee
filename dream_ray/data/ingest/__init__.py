"""Ingest: sources of labelled images become a store, in stages whose jobs run anywhere and may be repeated.

    list       each shard of the sources says where its images lie           listing.py
    plan       which images go into which file of the store                  plan.py
    write      each file: read, decode, resize, encode, digest, add up       writing.py
    finish     the notes of all files become the manifest, written last      finish.py

Each job leaves a file in the work directory of the store when it is done. An ingest that is started again does what is
missing, so whatever was killed, the store ends up the same.
"""

from dream_ray.data.ingest.jobs import Mapper, run_here, with_retries
from dream_ray.data.ingest.pipeline import ingest
from dream_ray.data.ingest.settings import IngestSettings
from dream_ray.data.ingest.target import IDENTITY

__all__ = ["IDENTITY", "IngestSettings", "Mapper", "ingest", "run_here", "with_retries"]
