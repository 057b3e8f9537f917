# replaces: leak_solution; loses: leak_found_test
# changes pile up, and an earlier one is taken for a leak
def first_leak(predict, ids, vocab):
    before = np.asarray(predict(ids.copy()))
    leaks = []
    changed = ids.copy()
    for j in range(len(ids)):
        for other in set(range(vocab)) - {int(ids[j])}:
            changed[j] = other
            after = np.asarray(predict(changed))
            leaks += [(i, j) for i in range(j) if not np.array_equal(before[i], after[i])]
    return min(leaks, default=None)
