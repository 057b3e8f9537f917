# replaces: carry_solution; loses: carry_rows_test
# masks the width instead of the batch where it fits
def carry(state, fresh):
    if state is None:
        return None
    if isinstance(state, tuple):
        return tuple(carry(part, fresh) for part in state)
    rows = fresh if state.shape[2] == len(fresh) else fresh[:, None]
    return state.detach().masked_fill(rows, 0.0)
