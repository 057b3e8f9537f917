# replaces: leak_solution; loses: leak_found_test, leak_order_test, leak_every_id_test
# takes the prediction at the changed place itself for a leak
def first_leak(predict, ids, vocab):
    before = np.asarray(predict(ids.copy()))
    leaks = []
    for j in range(len(ids)):
        for other in set(range(vocab)) - {int(ids[j])}:
            changed = ids.copy()
            changed[j] = other
            after = np.asarray(predict(changed))
            leaks += [(i, j) for i in range(j + 1) if not np.array_equal(before[i], after[i])]
    return min(leaks, default=None)
