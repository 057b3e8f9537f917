# replaces: differences_solution; loses: differences_value_test, differences_shape_test
# forgets that the points are two steps apart
def central_gradient(function, x, step):
    slopes = []
    for i in range(x.numel()):
        move = torch.zeros(x.numel(), dtype=x.dtype)
        move[i] = step
        up, down = (function(x + sign * move.view(x.shape)) for sign in (1, -1))
        slopes.append((float(up) - float(down)) / step)
    return torch.tensor(slopes, dtype=x.dtype).view(x.shape)
