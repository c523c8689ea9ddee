"""Processes that were started here: another Ray may run on the same machine."""

from pathlib import Path


def started_here(name: str) -> list[int]:
    """Returns the processes below this one whose command line begins with a name, such as "ray::Map"."""
    parents, named = {}, []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            # pid (name) state ppid ...; the name may hold spaces.
            parents[process.name] = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if (process / "cmdline").read_bytes().startswith(name.encode()):
                named.append(process.name)
        except OSError:  # gone meanwhile
            continue
    here = Path("/proc/self").resolve().name
    return [int(pid) for pid in named if here in _ancestors(pid, parents)]


def _ancestors(pid: str, parents: dict[str, str]) -> set[str]:
    above = set()
    while (pid := parents.get(pid, pid)) not in above:
        above.add(pid)
    return above
