# replaces: carry_solution; loses: carry_rows_test
# masks layers
def carry(state, fresh):
    if state is None:
        return None
    if isinstance(state, tuple):
        return tuple(carry(part, fresh) for part in state)
    return state.detach().masked_fill(fresh[: state.shape[0], None, None], 0.0)
