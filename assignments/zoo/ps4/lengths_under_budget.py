# replaces: span_lengths_solution; loses: lengths_budget
# throws the last span away where it does not fit
def span_lengths(u, budget, rho, longest):
    edges = [(1 - (1 - rho) ** k) / (1 - (1 - rho) ** longest) for k in range(1, longest + 1)]
    lengths = []
    for draw in u.tolist():
        length = min(sum(e <= draw for e in edges) + 1, longest)
        if sum(lengths) + length > budget:
            break
        lengths.append(length)
    return lengths
