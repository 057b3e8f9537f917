# replaces: leak_solution; loses: leak_found_test
# later rows may move; earlier ones may not
def first_leak(predict, ids, vocab):
    before = np.asarray(predict(ids.copy()))
    leaks = []
    for j in range(len(ids)):
        for other in set(range(vocab)) - {int(ids[j])}:
            changed = ids.copy()
            changed[j] = other
            after = np.asarray(predict(changed))
            leaks += [(0, j)] * (not np.array_equal(before, after))
    return min(leaks, default=None)
