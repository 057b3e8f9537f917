# replaces: backoff_solution; loses: backoff_weights_test, backoff_sum_test, backoff_values_test
# as if only one word gave D
def backoff_weights(pairs, k, D):
    after, kinds = pairs.sum(1), (pairs > 0).sum(1)
    q = (pairs.sum(0) + k) / (pairs.sum() + k * len(pairs))
    unseen = (pairs == 0) @ q
    alpha = np.ones(len(pairs))
    open_ = (after > 0) & (kinds < len(pairs))
    alpha[open_] = D / after[open_] / unseen[open_]
    alpha[kinds == len(pairs)] = 0.0
    return alpha


def backoff(pairs, k, D):
    after, kinds = pairs.sum(1, keepdims=True), (pairs > 0).sum(1, keepdims=True)
    q = (pairs.sum(0) + k) / (pairs.sum() + k * len(pairs))
    discount = np.where(kinds == len(pairs), 0.0, D)
    seen = (pairs - discount) / np.maximum(after, 1)
    return np.where(pairs > 0, seen, backoff_weights(pairs, k, D)[:, None] * q)
