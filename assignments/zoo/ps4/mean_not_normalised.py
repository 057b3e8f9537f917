# replaces: mean_length_solution; loses: mean_length_test
# forgets to divide by what is left after the cut
def mean_length(rho, longest):
    tail = (1 - rho) ** longest
    return (1 - tail) / rho - longest * tail
