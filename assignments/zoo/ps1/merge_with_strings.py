# replaces: merge_solution; full marks
# right: runs of equal symbols by groupby, and a sort for the ties
from itertools import groupby


def savings(words):
    result = {}
    for word, times in words.items():
        for a, b in pairwise(word):
            if a != b:
                result[a, b] = result.get((a, b), 0) + times
        for symbol, run in groupby(word):
            if pairs_in_run := len(list(run)) // 2:
                result[symbol, symbol] = result.get((symbol, symbol), 0) + pairs_in_run * times
    return result


def glue(word, a, b):
    out = []
    for symbol in word:
        if out and out[-1] == (a,) and symbol == b:
            out[-1] = (a, b)
        else:
            out.append((symbol,))
    return tuple("".join(part) for part in out)


def merge_step(words):
    gains = savings(words)
    top = max(gains.values(), default=0)
    if top < 2:
        return None, words
    equals = sorted(pair for pair, gain in gains.items() if gain == top)
    best = max(equals, key=lambda pair: len(pair[0]) + len(pair[1]))  # of equally long ones max keeps the first
    new = {}
    for word, times in words.items():
        changed = glue(word, *best)
        new[changed] = new.get(changed, 0) + times
    return best, new
