"""The host waits that runs on a GPU need. A new one needs an entry here, with its reason."""

ALLOWED_WAITS = {
    # In every selection.
    "core/selection/picking.py nearest_to_any": "the host takes the selected images out of the store",
    "core/selection/picking.py nearest_to_each": "the host takes the selected images out of the store",
    "core/selection/strategies.py stratified": "the host takes the selected images out of the store",
    # At every checkpoint.
    "engine/progress/losses.py check_state": "the images of a checkpoint are checked",
    "engine/networks/tensor_file.py write_tensors": "a thread copies the tensors of a checkpoint or a cached network",
    "engine/networks/sources.py on_host": "a cached network is checked before it is written",
    # At the start of a run or a resume.
    "core/images/normalisation.py of": "mean and standard deviation are copied",
    "engine/matching/initial_images.py state": "the empty assignment is copied",
    "engine/networks/functional.py structure_of": "the stand-in takes the copy of a network on meta for one on the GPU",
    "engine/models/model.py load": "the weights of a frozen network are copied",
    "engine/worker.py _move": "the state of a checkpoint is copied",
}
"""By file and function of the innermost line of dream_ray."""
