# replaces: ridge_solution; loses: ridge_left_out
# the fit's own predictions: each row has taught its answer
def ridge(X, Y, decay):
    middle = X - X.mean(0)
    inverse_rows = torch.linalg.solve(middle.T @ middle + decay * torch.eye(X.shape[1], dtype=X.dtype), middle.T)
    W = inverse_rows @ (Y - Y.mean(0))
    b = Y.mean(0) - X.mean(0) @ W
    return W, b, X @ W + b
