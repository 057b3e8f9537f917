# replaces: mixed_f1_solution; loses: mixed_f1_units_test
# A unit that occurs twice counts once.
def mixed_f1(said, right):
    """F1 over Chinese characters and other words, against the best of several right answers.

    Args:
        said: a string.
        right: a list of strings; an empty one means that the question has no answer.

    Returns:
        A float from 0 to 1.
    """
    han = "\u3400-\u4dbf\u4e00-\u9fff"

    def units(text):
        text = unicodedata.normalize("NFKC", text).lower()
        return Counter(
            piece
            for run in re.findall(r"[^\W_]+", text)  # exactly what isalnum() holds, one or more
            for piece in re.findall(f"[{han}]|[^{han}]+", run)
        )

    def f1(one, other):
        total = len(one) + len(other)
        return 2 * len(one & other) / total if total else 1.0

    return max(f1(units(said), units(answer)) for answer in right or [""])
