# replaces: experiment_solution; loses: experiment_nats_test
# counts the longest text every time
held_out = {}
for size in sizes:
    for D in discounts:
        table = backoff(count_pairs(train[: max(sizes)]), 0.5, D)
        held_out[size, D] = float(-np.log(table[valid[:-1], valid[1:]]).mean())
best_discount = {size: min(discounts, key=lambda D, size=size: held_out[size, D]) for size in sizes}
