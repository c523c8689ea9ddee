"""Measurements of the memory and the time of the steps of a run, each of which runs a few times.

`steps.py` is the entry point; `class_steps.py` and `student_steps.py` are the steps of the two objectives.
"""
