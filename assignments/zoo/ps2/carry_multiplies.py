# replaces: carry_solution; loses: carry_rows_test
# 0 times nan is nan
def carry(state, fresh):
    if state is None:
        return None
    if isinstance(state, tuple):
        return tuple(carry(part, fresh) for part in state)
    return state.detach() * (~fresh)[:, None]
