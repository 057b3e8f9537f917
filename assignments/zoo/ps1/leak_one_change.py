# replaces: leak_solution; loses: leak_every_id_test
# tries one other id
def first_leak(predict, ids, vocab):
    before = np.asarray(predict(ids.copy()))
    leaks = []
    for j in range(len(ids)):
        for other in [(int(ids[j]) + 1) % vocab]:
            changed = ids.copy()
            changed[j] = other
            after = np.asarray(predict(changed))
            leaks += [(i, j) for i in range(j) if not np.array_equal(before[i], after[i])]
    return min(leaks, default=None)
