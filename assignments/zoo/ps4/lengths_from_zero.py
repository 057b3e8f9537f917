# replaces: span_lengths_solution; loses: lengths_law
# lengths from 0 to m - 1
def span_lengths(u, budget, rho, longest):
    edges = [(1 - (1 - rho) ** k) / (1 - (1 - rho) ** longest) for k in range(1, longest + 1)]
    lengths = []
    for draw in u.tolist():
        if sum(lengths) == budget:
            break
        lengths.append(min(sum(e <= draw for e in edges), budget - sum(lengths)))
    return lengths
