"""Search for settings: sweep file, search space, study, trials, results and report (layer 2; needs no Ray)."""
