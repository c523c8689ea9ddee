"""Trajectories that are made ahead of those who match against them, handed over one network at a time, and kept.

conveyor.py   who makes what, how far ahead, and who has fetched it: one object that all threads or processes talk to
producing.py  the loop of a producer
threads.py    producers in this process
experts.py    the training of experts (MTT)
fetched.py    the network source of a worker that fetches
bank.py       networks on disk, for a resumed run, another run or another trial of a sweep
"""
