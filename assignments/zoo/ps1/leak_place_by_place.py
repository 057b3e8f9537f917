# replaces: leak_solution; full marks
# right: all predictions first, then a search in the order that was asked
def first_leak(predict, ids, vocab):
    n = len(ids)
    original = np.array(predict(ids))
    tried = {(j, v): np.array(predict(np.where(np.arange(n) == j, v, ids))) for j in range(1, n) for v in range(vocab)}
    for i in range(n):
        for j in range(i + 1, n):
            if any((tried[j, v][i] != original[i]).any() for v in range(vocab)):
                return i, j
    return None
