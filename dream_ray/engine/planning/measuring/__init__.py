"""What the steps of a run take in time and memory: measured by running each of them a few times.

`steps.py` is the entry point; `class_steps.py` and `student_steps.py` are the steps of the two objectives.
"""
