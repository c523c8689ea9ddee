"""What the name of a file tells about its content."""

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ico"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".jp2", ".j2k", ".jpx"),
)
"""Ends of the names of images, in lower case."""

# Archives are no other files, because they may hold images.
_OTHER_SUFFIXES = (
    # What systems leave in directories.
    *("thumbs.db", "desktop.ini"),
    # Texts, tables, annotations and programs beside images.
    *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md", ".rst", ".html", ".htm", ".pdf"),
    *(".log", ".lst", ".cfg", ".ini", ".db", ".xls", ".xlsx", ".doc", ".docx", ".py", ".ipynb", ".sh", ".md5"),
    # Arrays and tables of numbers.
    *(".npy", ".npz", ".mat", ".pkl", ".pickle", ".pt", ".pth", ".h5", ".hdf5", ".parquet", ".arrow"),
    # Films and sounds.
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".mp3", ".wav"),
)


def is_hidden(path: str) -> bool:
    """Tells whether a part of a relative path starts with a dot, or is what macOS adds to zip archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def is_other_file(path: str) -> bool:
    """Tells whether a file is no image by its name: Thumbs.db, a text, a film; unknown names may be images."""
    return path.lower().endswith(_OTHER_SUFFIXES)
