"""Networks that are trained once, or come from elsewhere: their training, their directory and their checks."""
