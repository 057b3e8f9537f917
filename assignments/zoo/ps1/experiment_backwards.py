# replaces: experiment_solution; loses: experiment_nats_test
# asks for the earlier character after the later one
held_out = {}
for size in sizes:
    for D in discounts:
        table = backoff(count_pairs(train[:size]), 0.5, D)
        held_out[size, D] = float(-np.log(table[valid[1:], valid[:-1]]).mean())
best_discount = {size: min(discounts, key=lambda D, size=size: held_out[size, D]) for size in sizes}
