"""`python -m dream_ray` and the console command `dream-ray`."""

from dream_ray.cli import main

if __name__ == "__main__":
    main()
