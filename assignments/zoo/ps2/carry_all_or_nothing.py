# replaces: carry_solution; loses: carry_rows_test
# forgets every row as soon as one is fresh
def carry(state, fresh):
    if state is None:
        return None
    if isinstance(state, tuple):
        return tuple(carry(part, fresh) for part in state)
    return torch.zeros_like(state) if fresh.any() else state.detach()
