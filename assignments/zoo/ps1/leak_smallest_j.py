# replaces: leak_solution; loses: leak_order_test
# the first that it meets, which has the smallest j
def first_leak(predict, ids, vocab):
    before = np.asarray(predict(ids.copy()))
    leaks = []
    for j in range(len(ids)):
        for other in set(range(vocab)) - {int(ids[j])}:
            changed = ids.copy()
            changed[j] = other
            after = np.asarray(predict(changed))
            leaks += [(i, j) for i in range(j) if not np.array_equal(before[i], after[i])]
    return leaks[0] if leaks else None
