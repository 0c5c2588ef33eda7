"""Normal forms in which short answers are compared."""

import re
import string

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_normal(text: str) -> str:
    """Lower case, no ASCII punctuation, no English articles, single blanks; linear in the length.

    SQuAD 1.1's normalisation (arXiv:1606.05250), which Search-R1 and verl use unchanged.

    >>> squad_normal("The  Eiffel-Tower, (Paris)!")
    'eiffeltower paris'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def caseless(text: str) -> str:
    """Without surrounding blanks, in folded case.

    >>> caseless(" Straße ")
    'strasse'
    """
    return text.strip().casefold()
