# replaces: restarts_solution; loses: restarts_floor_test
# shrinks the floor with the peak
def lr_with_restarts(step, peak, floor, warmup, first, growth, shrink):
    if step < warmup:
        return peak * (step + 1) / warmup
    place, length, top = step - warmup, first, peak
    while place >= length:
        place, length, top = place - length, length * growth, top * shrink
    floor = floor * top / peak
    return floor + (top - floor) * 0.5 * (1 + math.cos(math.pi * place / length))
