"""Networks that are trained once, or come from elsewhere: their directory, their checks and their uses."""
