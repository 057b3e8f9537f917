# replaces: merge_solution; loses: merge_glue_test
# replaces in a string, where the end of one symbol passes for another
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
    best = min(saved, key=lambda pair: (-saved[pair], -len("".join(pair)), pair), default=None)
    if best is None or saved[best] < 2:
        return None, dict(words)
    after = Counter()
    for word, f in words.items():
        glued = " ".join(word).replace(" ".join(best), "".join(best)).split(" ")
        after[tuple(glued)] += f
    return best, dict(after)
