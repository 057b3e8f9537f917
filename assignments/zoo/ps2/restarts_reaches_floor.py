# replaces: restarts_solution; loses: restarts_first_test, restarts_cycle_test, restarts_floor_test
# the last step of a cycle is at the floor already
def lr_with_restarts(step, peak, floor, warmup, first, growth, shrink):
    if step < warmup:
        return peak * (step + 1) / warmup
    place, length, top = step - warmup, first, peak
    while place >= length:
        place, length, top = place - length, length * growth, top * shrink
    return floor + (top - floor) * 0.5 * (1 + math.cos(math.pi * place / max(1, length - 1)))
