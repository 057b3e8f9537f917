# replaces: span_lengths_solution; loses: lengths_law
# the law without its normalising constant: the longest length gets all that was cut off
def span_lengths(u, budget, rho, longest):
    lengths = []
    for draw in u.tolist():
        if sum(lengths) == budget:
            break
        length = 1
        while length < longest and 1 - (1 - rho) ** length <= draw:
            length += 1
        lengths.append(min(length, budget - sum(lengths)))
    return lengths
