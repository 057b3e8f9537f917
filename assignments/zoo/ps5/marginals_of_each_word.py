# replaces: marginals_solution; loses: marginals_allowed_test
# Sums over all rows, and then takes the allowed share of every word by itself.
def marginals(emissions, transitions, allowed=None):
    """The usual recursions; forbidden tags are struck out of the result."""
    if allowed is not None and not allowed.any(1).all():
        raise ValueError("a word has no allowed tag")
    forward, backward = [emissions[0]], [torch.zeros_like(emissions[0])]
    for row in emissions[1:]:
        forward.append(row + (forward[-1][:, None] + transitions).logsumexp(0))
    for row in emissions[1:].flip(0):
        backward.append((transitions + row + backward[-1]).logsumexp(1))
    log_mass = forward[-1].logsumexp(0)
    posterior = (torch.stack(forward) + torch.stack(backward[::-1]) - log_mass).exp()
    if allowed is not None:
        posterior = posterior * allowed
        posterior = posterior / posterior.sum(1, keepdim=True)
    return log_mass, posterior
