# replaces: marginals_solution; loses: marginals_long_test
# Sums of exponentials, which overflow.
def marginals(emissions, transitions, allowed=None):
    """The two recursions with weights in place of their logarithms."""
    weights, steps = emissions.exp(), transitions.exp()
    if allowed is not None:
        if not allowed.any(1).all():
            raise ValueError("a word has no allowed tag")
        weights = weights * allowed
    forward, backward = [weights[0]], [torch.ones_like(weights[0])]
    for row in weights[1:]:
        forward.append(row * (forward[-1] @ steps))
    for row in weights[1:].flip(0):
        backward.append(steps @ (row * backward[-1]))
    total = forward[-1].sum()
    return total.log(), torch.stack(forward) * torch.stack(backward[::-1]) / total
