# replaces: leak_solution; loses: leak_order_test, leak_every_id_test
# looks at the neighbour only
def first_leak(predict, ids, vocab):
    before = np.asarray(predict(ids.copy()))
    leaks = []
    for j in range(len(ids)):
        for other in set(range(vocab)) - {int(ids[j])}:
            changed = ids.copy()
            changed[j] = other
            after = np.asarray(predict(changed))
            leaks += [(i, j) for i in range(max(j - 1, 0), j) if not np.array_equal(before[i], after[i])]
    return min(leaks, default=None)
