# replaces: mean_length_solution; loses: mean_length_test
# the mean of the law that is not cut off
def mean_length(rho, longest):
    return 1 / rho
