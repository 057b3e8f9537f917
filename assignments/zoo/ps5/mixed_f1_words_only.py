# replaces: mixed_f1_solution; loses: mixed_f1_units_test
# Chinese characters in a row are one word.
def mixed_f1(said, right):
    """F1 over Chinese characters and other words, against the best of several right answers.

    Args:
        said: a string.
        right: a list of strings; an empty one means that the question has no answer.

    Returns:
        A float from 0 to 1.
    """

    def units(text):
        text = unicodedata.normalize("NFKC", text).lower()
        return Counter(
            run
            for run in re.findall(r"[^\W_]+", text)  # exactly what isalnum() holds, one or more
        )

    def f1(one, other):
        total = one.total() + other.total()
        return 2 * (one & other).total() / total if total else 1.0

    return max(f1(units(said), units(answer)) for answer in right or [""])
