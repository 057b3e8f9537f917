# replaces: best_two_solution; loses: best_two_rows_test
# The runner-up has to end in another tag.
def best_two(emissions, transitions, forbidden):
    """The best row for each last tag, and the two best of these."""
    steps = transitions.masked_fill(forbidden, -math.inf)
    best, rows = emissions[0], [[k] for k in range(emissions.shape[1])]
    for emission in emissions[1:]:
        score, came_from = (best[:, None] + steps).max(0)
        best, rows = score + emission, [[*rows[j], k] for k, j in enumerate(came_from.tolist())]
    found = sorted(zip(best.tolist(), rows, strict=True), reverse=True)[:2]
    found = [pair for pair in found if pair[0] > -math.inf]
    if not found:
        raise ValueError("every row takes a forbidden step")
    return found
