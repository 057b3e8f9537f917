# replaces: mean_length_solution; full marks
# adds up P(ℓ > k)
def mean_length(rho, longest):
    r = 1 - rho
    return math.fsum(r**k - r**longest for k in range(longest)) / (1 - r**longest)
