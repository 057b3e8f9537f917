# replaces: gradient_solution; loses: gradient_numeric_test, gradient_ends_test
# The allowed tags of a word share its probability evenly.
def partial_gradient(emissions, transitions, allowed):
    """The gradient of log Z - log Z_C with respect to the emissions.

    Args:
        emissions: a tensor of shape (words, tags).
        transitions: of shape (tags, tags).
        allowed: bools of shape (words, tags).

    Returns:
        A tensor of shape (words, tags).
    """
    return marginals(emissions, transitions)[1] - allowed / allowed.sum(1, keepdim=True)
