# replaces: backoff_solution; loses: backoff_special_test
# an unseen context gets zero instead of q
def backoff_weights(pairs, k, D):
    after, kinds = pairs.sum(1), (pairs > 0).sum(1)
    q = (pairs.sum(0) + k) / (pairs.sum() + k * len(pairs))
    unseen = (pairs == 0) @ q
    alpha = np.zeros(len(pairs))
    open_ = (after > 0) & (kinds < len(pairs))
    alpha[open_] = D * kinds[open_] / after[open_] / unseen[open_]
    alpha[kinds == len(pairs)] = 0.0
    return alpha


def backoff(pairs, k, D):
    after, kinds = pairs.sum(1, keepdims=True), (pairs > 0).sum(1, keepdims=True)
    q = (pairs.sum(0) + k) / (pairs.sum() + k * len(pairs))
    discount = np.where(kinds == len(pairs), 0.0, D)
    seen = (pairs - discount) / np.maximum(after, 1)
    return np.where(pairs > 0, seen, backoff_weights(pairs, k, D)[:, None] * q)
