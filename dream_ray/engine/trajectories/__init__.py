"""Trajectories that producers train ahead of the workers, passed on one snapshot at a time, and kept on disk.

snapshot_queue.py  passes snapshots from producers to workers, bounded by the slowest worker
producing.py       the loop of a producer
threads.py         producers in this process
experts.py         the training of experts (MTT)
fetched.py         the network source of a worker that gets its networks from the queue
bank.py            networks on disk, for a resumed run, another run or another trial of a sweep
"""
