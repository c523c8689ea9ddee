"""The form of the programs of a run: the decision whether they are compiled, and in which form they are executed."""
