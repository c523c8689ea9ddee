"""Files that are read whole, where nobody knows how large they are."""

from dream_ray.storage.paths import NotReadable, failure, resolve


def read_small(path: str, max_bytes: int) -> bytes:
    """Returns a file's content, unless it is larger than it may be.

    Raises:
        NotReadable: If it is missing, may not be read, or has more than `max_bytes`.
        RunError: If reading fails.
    """
    filesystem, target = resolve(path)
    try:
        with filesystem.open_input_file(target) as file:
            if file.size() > max_bytes:
                raise NotReadable(f"{path} must have at most {max_bytes} bytes; it has {file.size()}")
            return bytes(file.read())
    except OSError as error:
        raise failure("read", path, error) from None
