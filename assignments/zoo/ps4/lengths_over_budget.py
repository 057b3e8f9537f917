# replaces: span_lengths_solution; loses: lengths_budget
# stops when the budget is reached, and may have spent too much
def span_lengths(u, budget, rho, longest):
    edges = [(1 - (1 - rho) ** k) / (1 - (1 - rho) ** longest) for k in range(1, longest + 1)]
    lengths = []
    for draw in u.tolist():
        if sum(lengths) >= budget:
            break
        lengths.append(min(sum(e <= draw for e in edges) + 1, longest))
    return lengths
