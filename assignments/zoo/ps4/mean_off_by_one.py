# replaces: mean_length_solution; loses: mean_length_test
# counts failures before the first success, so that every length is one too small
def mean_length(rho, longest):
    tail = (1 - rho) ** longest
    return (1 - rho) / rho - longest * tail / (1 - tail)
