# replaces: differences_solution; loses: differences_shape_test
# moves the entries of x itself and never moves them back
def central_gradient(function, x, step):
    gradient = torch.zeros(x.shape, dtype=x.dtype)
    for place in torch.cartesian_prod(*[torch.arange(n) for n in x.shape]).reshape(x.numel(), -1) if x.ndim else [()]:
        place = tuple(int(i) for i in place)
        x[place] += step
        up = float(function(x))
        x[place] -= 2 * step
        gradient[place] = (up - float(function(x))) / (2 * step)
    return gradient
