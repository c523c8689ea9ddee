"""Lists of classes by name: the subsets of ImageNet in the literature, or a user's file."""

import unicodedata
from collections import Counter
from collections.abc import Iterable

from dream_ray import storage
from dream_ray.errors import UsageError

# ImageNet-100 of CMC (Tian et al., arXiv 1906.05849), in its order; IDC's ImageNet-10 is the first ten of them.
_IMAGENET_100 = """
n02869837 n01749939 n02488291 n02107142 n13037406 n02091831 n04517823 n04589890 n03062245 n01773797
n01735189 n07831146 n07753275 n03085013 n04485082 n02105505 n01983481 n02788148 n03530642 n04435653
n02086910 n02859443 n13040303 n03594734 n02085620 n02099849 n01558993 n04493381 n02109047 n04111531
n02877765 n04429376 n02009229 n01978455 n02106550 n01820546 n01692333 n07714571 n02974003 n02114855
n03785016 n03764736 n03775546 n02087046 n07836838 n04099969 n04592741 n03891251 n02701002 n03379051
n02259212 n07715103 n03947888 n04026417 n02326432 n03637318 n01980166 n02113799 n02086240 n03903868
n02483362 n04127249 n02089973 n03017168 n02093428 n02804414 n02396427 n04418357 n02172182 n01729322
n02113978 n03787032 n02089867 n02119022 n03777754 n04238763 n02231487 n03032252 n02138441 n02104029
n03837869 n03494278 n04136333 n03794056 n03492542 n02018207 n04067472 n03930630 n03584829 n02123045
n04229816 n02100583 n03642806 n04336792 n03259280 n02116738 n02108089 n03424325 n01855672 n02090622
"""
_IMAGENETTE = """
n01440764 n02102040 n02979186 n03000684 n03028079 n03394916 n03417042 n03425413 n03445777 n03888257
"""
_IMAGEWOOF = """
n02086240 n02087394 n02088364 n02089973 n02093754 n02096294 n02099601 n02105641 n02111889 n02115641
"""

CLASS_LISTS: dict[str, tuple[str, ...]] = {
    "imagenet-10": tuple(_IMAGENET_100.split()[:10]),
    "imagenet-100": tuple(_IMAGENET_100.split()),
    "imagenette": tuple(_IMAGENETTE.split()),
    "imagewoof": tuple(_IMAGEWOOF.split()),
}
"""WordNet ids, the names of ImageNet's directories, in the order of the labels."""


def read_classes(given: str) -> tuple[str, ...]:
    """Returns the classes that a text names.

    Args:
        given: A key of `CLASS_LISTS`; a file with one class per line, see `possible_names`; or names separated by
            commas.

    Raises:
        UsageError: If it is none of these.
    """
    if given in CLASS_LISTS:
        return CLASS_LISTS[given]
    if storage.exists(given):
        # Windows editors begin a file with a byte order mark, which is not part of the first name.
        lines = storage.read_text(given).removeprefix("\ufeff").splitlines()
        return tuple(line.strip() for line in lines if line.strip())
    names = tuple(name.strip() for name in given.split(","))
    if len(names) < 2 or not all(names):
        raise UsageError(
            f"classes must be one of {', '.join(CLASS_LISTS)}, a file with one class per line, or names separated by "
            f"commas; got {given!r}"
        )
    return names


def composed(text: str) -> str:
    """Returns a text in Unicode's form NFC: macOS writes the letters of file names in parts (NFD), others whole."""
    return unicodedata.normalize("NFC", text)


def repeated_name(names: Iterable[str]) -> str | None:
    """Returns the first name that occurs more than once; None if all differ."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def alike_names(names: Iterable[str]) -> tuple[str, str] | None:
    """Returns the first two names that people may take for one; None if there are none.

    They differ in case, blanks, invisible characters, forms of letters such as full-width ones, or zeros before a
    number.
    """
    seen: dict[str, str] = {}
    for name in names:
        visible = (letter for letter in unicodedata.normalize("NFKC", name) if unicodedata.category(letter) != "Cf")
        key = " ".join("".join(visible).casefold().split())
        key = key.lstrip("0") or "0" if key.isdecimal() else key
        if seen.setdefault(key, name) != name:
            return seen[key], name
    return None


def possible_names(given: str) -> tuple[str, ...]:
    """Returns the class names that a line may contain, the likeliest first.

    A line may be a name with blanks, or a name and its meaning (`n01440764 tench`). Only the classes of the source
    decide between the two.
    """
    return tuple(dict.fromkeys([given, *given.split(maxsplit=1)[:1]]))
