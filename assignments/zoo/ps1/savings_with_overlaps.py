# replaces: merge_solution; loses: savings_overlap_test
# chapter 2's count (2.1), which takes both pairs of aaa
def savings(words):
    saved = Counter()
    for word, f in words.items():
        for pair in pairwise(word):
            saved[pair] += f
    return dict(saved)


def merge_step(words):
    saved = savings(words)
    best = min(saved, key=lambda pair: (-saved[pair], -len("".join(pair)), pair), default=None)
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
