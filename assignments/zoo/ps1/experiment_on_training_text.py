# replaces: experiment_solution; loses: experiment_nats_test, experiment_best_test
# judges on the text that was counted: less discount is always better there
held_out = {}
for size in sizes:
    for D in discounts:
        table = backoff(count_pairs(train[:size]), 0.5, D)
        held_out[size, D] = float(-np.log(table[train[:size][:-1], train[:size][1:]]).mean())
best_discount = {size: min(discounts, key=lambda D, size=size: held_out[size, D]) for size in sizes}
