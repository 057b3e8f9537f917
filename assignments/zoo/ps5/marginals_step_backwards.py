# replaces: marginals_solution; loses: marginals_all_test
# From the right, the steps are taken the wrong way round.
def marginals(emissions, transitions, allowed=None):
    """The summed weight of the allowed rows, and each word's distribution over tags among them.

    Args:
        emissions: E, a tensor of shape (words, tags), at least one word.
        transitions: A, of shape (tags, tags): from a row's tag to a column's tag.
        allowed: a tensor of bools of shape (words, tags), or None.

    Returns:
        log Z_C, a number, and P(y_t = k | y in C), of shape (words, tags).

    Raises:
        ValueError: a word has no allowed tag.
    """
    if allowed is not None:
        for word, tags in enumerate(allowed):
            if not tags.any():
                raise ValueError(f"word {word} has no allowed tag; allow at least one")
        emissions = emissions.masked_fill(~allowed, -math.inf)
    forward, backward = [emissions[0]], [torch.zeros_like(emissions[0])]
    for row in emissions[1:]:
        forward.append(row + (forward[-1][:, None] + transitions).logsumexp(0))
    for row in emissions[1:].flip(0):
        backward.append((transitions.T + row + backward[-1]).logsumexp(1))
    log_mass = forward[-1].logsumexp(0)
    return log_mass, (torch.stack(forward) + torch.stack(backward[::-1]) - log_mass).exp()
