# replaces: merge_solution; loses: merge_tie_test
# chapter 2's rule for ties
def savings(words):
    saved = Counter()
    for word, f in words.items():
        counted_at = {}
        for i, pair in enumerate(pairwise(word)):
            if counted_at.get(pair) != i - 1:  # else it shares a symbol with the one counted last
                saved[pair] += f
                counted_at[pair] = i
    return dict(saved)


def merge_step(words):
    saved = savings(words)
    best = min(saved, key=lambda pair: (-saved[pair], pair), default=None)
    if best is None or saved[best] < 2:
        return None, dict(words)
    after = Counter()
    for word, f in words.items():
        glued = []
        i = 0
        while i < len(word):
            step = 2 if word[i : i + 2] == best else 1
            glued.append("".join(word[i : i + step]))
            i += step
        after[tuple(glued)] += f
    return best, dict(after)
