# replaces: span_lengths_solution; full marks
# solves F(ℓ) > u for ℓ with a logarithm
def span_lengths(u, budget, rho, longest):
    cut, lengths, left = 1 - (1 - rho) ** longest, [], budget
    for draw in u.double():
        if left == 0:
            break
        length = math.floor(math.log1p(-draw.item() * cut) / math.log1p(-rho)) + 1
        lengths.append(min(length, longest, left))
        left -= lengths[-1]
    return lengths
