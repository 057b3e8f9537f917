# replaces: gradient_solution; loses: gradient_numeric_test
# Open words are left without a gradient.
def partial_gradient(emissions, transitions, allowed):
    """The gradient of log Z - log Z_C with respect to the emissions.

    Args:
        emissions: a tensor of shape (words, tags).
        transitions: of shape (tags, tags).
        allowed: bools of shape (words, tags).

    Returns:
        A tensor of shape (words, tags).
    """
    gradient = marginals(emissions, transitions)[1] - marginals(emissions, transitions, allowed)[1]
    return gradient * ~allowed.all(1, keepdim=True)
