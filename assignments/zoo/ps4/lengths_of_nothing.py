# replaces: span_lengths_solution; loses: lengths_budget
# goes on after the budget is spent, with spans of length 0
def span_lengths(u, budget, rho, longest):
    edges = [(1 - (1 - rho) ** k) / (1 - (1 - rho) ** longest) for k in range(1, longest + 1)]
    lengths = []
    for draw in u.tolist():
        lengths.append(min(sum(e <= draw for e in edges) + 1, longest, budget - sum(lengths)))
    return lengths
