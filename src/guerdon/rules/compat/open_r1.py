"""open-r1, `src/open_r1/rewards.py`: the scorers of form."""

_THOUGHT = "<think>\n"
_BETWEEN = "\n</think>\n<answer>\n"
_CLOSE = "\n</answer>"


def format_reward(text: str) -> float:
    r"""`format_reward`: think and answer blocks, each tag on its own line, from the start.

    Text may follow on further lines, because the original matches with MULTILINE.

    >>> format_reward("<think>\na\n</think>\n<answer>\nb\n</answer>\nmore")
    1.0
    """
    if not text.startswith(_THOUGHT):
        return 0.0
    between = text.find(_BETWEEN, len(_THOUGHT))
    if between < 0:
        return 0.0
    close = text.find(_CLOSE, between + len(_BETWEEN))
    while close >= 0:
        after = close + len(_CLOSE)
        if after == len(text) or text[after] == "\n":
            return 1.0
        close = text.find(_CLOSE, close + 1)
    return 0.0


def tag_count(text: str) -> float:
    r"""`tag_count_reward`: a quarter for each of four tags with its newlines that occurs once.

    >>> tag_count("<think>\na\n</think>\n<answer>\nb")
    0.75
    """
    tags = (_THOUGHT, "\n</think>\n", "\n<answer>\n", _CLOSE)
    return sum(0.25 for tag in tags if text.count(tag) == 1)
